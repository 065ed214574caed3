"""Tracing: a model as a graph of PyTorch's operators, and what these do with units."""

from __future__ import annotations

import logging
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from penalize.errors import ModelError
from penalize.torch.compacting.calls import Call
from penalize.torch.compacting.operators import VIEWS, applied
from penalize.torch.compacting.proof import Inputs, aside
from penalize.torch.compacting.readers import Move, Wiring
from penalize.torch.compacting.units import Units
from penalize.torch.compacting.values import constant, name_of, parameter, plain, values_in


def traced(model: nn.Module, *inputs: Inputs, units: Units | None = None) -> Wiring:
    """The units of a model, and who reads them, on all of these inputs.

    What is a constant for one size only, as a sum of constants, is none; moves are those of the
    first inputs.

    Args:
        model: the model.
        inputs: arguments, and arguments by name, of several sizes.
        units: what is known of its units, if it is what was left of another.

    Raises:
        ModelError: ``torch.export`` cannot follow it.
    """
    wiring = Wiring(units or Units())
    wiring.units.weights = {
        name: w.detach().cpu()
        for name, w in [
            *model.named_parameters(remove_duplicate=False),
            *model.named_buffers(remove_duplicate=False),
        ]
    }
    moves = []
    for given in inputs:
        program = _exported(model, *given)
        try:
            with torch.no_grad():
                _Walk(wiring, program).run()
        except GuardOnDataDependentSymNode as error:
            raise ModelError(
                f"a {type(model).__name__} has a tensor whose size depends on the data",
                "compact the parts before and behind that",
            ) from error
        moves.append(wiring.moves)
        wiring.sizes.append(_sizes_in(wiring.moves))
        wiring.moves = []
    wiring.moves = moves[0]
    return wiring


def _sizes_in(moves: Sequence[Move]) -> dict[str, set[int]]:
    found: dict[str, set[int]] = defaultdict(set)
    for move in moves:
        found[move.owner].update(size for ids in move.units for size in ids.shape)
    return found


@contextmanager
def unlogged(name: str = "torch._subclasses.fake_tensor") -> Iterator[None]:
    """Have PyTorch write no stack trace of what it cannot follow: that becomes a sentence."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _exported(model: nn.Module, inputs: Sequence[Any], keywords: dict[str, Any]) -> Any:
    try:
        with warnings.catch_warnings(), unlogged():
            warnings.simplefilter("ignore")  # of what its modules do when they are traced
            return torch.export.export(aside(model), tuple(inputs), keywords, strict=False)
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise ModelError(
            f"torch.export cannot follow a {type(model).__name__} on these inputs "
            f"({type(error).__name__}: {lines[0][:200]})",
            "give inputs that model(*inputs) takes; a part whose control flow does not depend on "
            "the data can be compacted alone",
        ) from error


class _Walk:
    """The operators of a program, one after the other."""

    def __init__(self, wiring: Wiring, program: Any) -> None:
        self._wiring, self._program = wiring, program
        module = program.graph_module
        views = _views(module.graph)
        self._changed = {
            self._named().get(views[each].name)
            for node in module.graph.nodes
            for each in _written_by(module, node)
        }

    def _named(self) -> dict[str, str]:
        signature = self._program.graph_signature
        return {**signature.inputs_to_parameters, **signature.inputs_to_buffers}

    def run(self) -> None:
        inputs = [n for n in self._program.graph.nodes if n.op == "placeholder"]
        found = self._through(self._program.graph_module, [self._placed(n) for n in inputs])
        self._wiring.keep(values_in(found), "it is an output of the model")
        self._wiring.units.settle()

    def _placed(self, node: Any) -> Any:
        """An input of the program: a parameter, a buffer, a constant, or an input of the model."""
        signature, meta = self._program.graph_signature, node.meta.get("val")
        tensors = {**self._program.constants, **self._program.state_dict}
        name = self._named().get(node.name)
        if name is not None:
            found = self._parameter(name, tensors[name].detach().cpu(), meta)
            is_fixed = node.name in signature.inputs_to_buffers and found.origin is not None
            return found._replace(fixed=found.constant) if is_fixed else found
        lifted = signature.inputs_to_lifted_tensor_constants.get(node.name)
        if lifted is not None:
            return constant(tensors[lifted].detach().cpu())
        return plain(meta) if isinstance(meta, Tensor) else meta

    def _parameter(self, name: str, x: Tensor, meta: Any) -> Any:
        value = parameter(name, x, self._wiring.units.numbers(x.numel()))
        if name not in self._changed and not x.is_complex():
            return value
        self._wiring.keep_parameters([value], "it is complex, or each call changes it")
        return plain(meta)

    def _through(self, module: Any, inputs: Sequence[Any]) -> Any:
        """The outputs of a graph."""
        found: dict[Any, Any] = {}
        given, views = iter(inputs), _views(module.graph)
        for node in module.graph.nodes:
            args, kwargs = torch.fx.map_arg((node.args, dict(node.kwargs)), found.__getitem__)
            if node.op == "placeholder":
                found[node] = next(given)
            elif node.op == "get_attr":
                found[node] = getattr(module, node.target)
            elif node.op == "output":
                return args[0]
            else:
                found[node] = self._called(
                    node, args, {k: x for k, x in kwargs.items() if k != "device"}
                )
                for each in _written_by(module, node):
                    self._written_into(node, each, found, views)
                for each in node.all_input_nodes:
                    if all(user in found for user in each.users):
                        found[each] = None  # it may be large
        raise AssertionError("a graph without an output")

    def _written_into(
        self, node: Any, base: Any, found: dict[Any, Any], views: dict[Any, Any]
    ) -> None:
        """Note that an operator has changed an argument, which is asked for by its old name.

        Of what has a part of the same memory, and is read later, nothing is known any more.
        """
        known = _is_in_place(node.target)
        if known:
            found[base] = found[node]
        for other in [*found]:
            shares = views[other] is views[base] and not (known and other in (base, node))
            if shares and any(user not in found for user in other.users):
                why = f"{name_of(node.target)} writes into it"
                self._wiring.keep(values_in([found[other], found[node]]), why)
                found[other] = plain(other.meta.get("val"))

    def _called(self, node: Any, args: Any, kwargs: Any) -> Any:
        at = _inner_graph(node)
        if at is not None and not any(_written_by(args[at], n) for n in args[at].graph.nodes):
            return self._through(args[at], args[at + 1 :])
        owners = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
        call = Call(self._wiring, node.target, node.meta.get("val"), owners[-1] if owners else "")
        return applied(call, args, kwargs)


def _views(graph: Any) -> dict[Any, Any]:
    """Each node → the first one whose memory it may have."""
    found: dict[Any, Any] = {}
    for node in graph.nodes:
        is_view = name_of(node.target) in VIEWS or _is_in_place(node.target)
        found[node] = found[node.args[0]] if is_view and node.args else node
    return found


def _inner_graph(node: Any) -> int | None:
    """Where the arguments have the graph that is run under autocast, or without gradients."""
    if not str(node.target).startswith("wrap_with"):
        return None
    return next(i for i, x in enumerate(node.args) if getattr(x, "op", "") == "get_attr")


def _written_by(module: Any, node: Any) -> list[Any]:
    """The arguments that a node writes into."""
    if _is_in_place(node.target):
        return [node.args[0]] if isinstance(node.args[0], torch.fx.Node) else [*node.args[0]]
    at = _inner_graph(node)
    if at is None:
        return []
    inner = getattr(module, node.args[at].target)
    views = _views(inner.graph)
    written = {views[each] for n in inner.graph.nodes for each in _written_by(inner, n)}
    places = [n for n in inner.graph.nodes if n.op == "placeholder"]
    return [x for x, n in zip(node.args[at + 1 :], places, strict=True) if n in written]


def _is_in_place(target: Any) -> bool:
    return str(getattr(target, "__name__", "")).partition(".")[0].endswith("_")
