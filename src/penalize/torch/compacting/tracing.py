"""Tracing: a model as a graph of PyTorch's operators, and what these do with units."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from penalize.errors import ModelError
from penalize.torch.compacting.calls import Call
from penalize.torch.compacting.operators import PARTS, applied
from penalize.torch.compacting.readers import Wiring
from penalize.torch.compacting.units import Units
from penalize.torch.compacting.values import constant, name_of, parameter, plain, values_in


def traced(model: nn.Module, inputs: Sequence[Any], keywords: dict[str, Any]) -> Wiring:
    """The units of a model, and who reads them.

    Raises:
        ModelError: ``torch.export`` cannot follow it.
    """
    program = _exported(model, inputs, keywords)
    wiring = Wiring(Units())
    wiring.units.weights = {
        name: w.detach().cpu()
        for name, w in [
            *model.named_parameters(remove_duplicate=False),
            *model.named_buffers(remove_duplicate=False),
        ]
    }
    with torch.no_grad():
        _Walk(wiring, program).run()
    return wiring


def _exported(model: nn.Module, inputs: Sequence[Any], keywords: dict[str, Any]) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what its modules do when they are traced
            return torch.export.export(model, tuple(inputs), keywords, strict=False)
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

    def run(self) -> None:
        inputs = [n for n in self._program.graph.nodes if n.op == "placeholder"]
        found = self._through(self._program.graph_module, [self._placed(n) for n in inputs])
        for value in values_in(found):
            self._wiring.units.keep(value.units, "it is an output of the model")

    def _placed(self, node: Any) -> Any:
        """An input of the program: a parameter, a buffer, a constant, or an input of the model."""
        signature, meta = self._program.graph_signature, node.meta.get("val")
        named = signature.inputs_to_parameters | signature.inputs_to_buffers
        tensors = {**self._program.constants, **self._program.state_dict}
        if node.name in named:
            name = named[node.name]
            return parameter(name, tensors[name])
        lifted = signature.inputs_to_lifted_tensor_constants.get(node.name)
        if lifted is not None:
            return constant(tensors[lifted].detach().cpu())
        return plain(meta) if isinstance(meta, Tensor) else meta

    def _through(self, module: Any, inputs: Sequence[Any]) -> Any:
        """The outputs of a graph."""
        found: dict[Any, Any] = {}
        given = iter(inputs)
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
                if _is_in_place(node.target):
                    self._written_into(node, found)
        raise AssertionError("a graph without an output")

    def _written_into(self, node: Any, found: dict[Any, Any]) -> None:
        """Note that an operator has changed its first argument, which is asked for by its old name.

        Of what that is a part of, and of what was written, nothing is known any more.
        """
        base = node.args[0]
        found[base] = found[node]
        while base.op == "call_function" and name_of(base.target) in PARTS:
            base = base.args[0]
            for other in (base, node):
                self._wiring.keep(values_in(found[other]), f"{name_of(node.target)} writes into it")
                found[other] = plain(other.meta.get("val"))
            found[node.args[0]] = found[node]

    def _called(self, node: Any, args: Any, kwargs: Any) -> Any:
        parts = [i for i, x in enumerate(args) if isinstance(x, torch.fx.GraphModule)]
        if parts and str(node.target).startswith("wrap_with"):  # autocast, or without gradients
            return self._through(args[parts[0]], args[parts[0] + 1 :])
        return applied(Call(self._wiring, node.target, node.meta.get("val")), args, kwargs)


def _is_in_place(target: Any) -> bool:
    return str(getattr(target, "__name__", "")).partition(".")[0].endswith("_")
