"""A model without its dead units, that gives the same answers."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from penalize.compacting import report
from penalize.compacting.report import Layer
from penalize.errors import ModelError, NothingToCutWarning
from penalize.torch.compacting.carrying import carried_over, with_biases
from penalize.torch.compacting.cutting import Cut
from penalize.torch.compacting.others import others
from penalize.torch.compacting.proof import Inputs, outputs
from penalize.torch.compacting.proving import proven
from penalize.torch.compacting.readers import Wiring
from penalize.torch.compacting.tracing import traced
from penalize.torch.model.sharding import is_sharded

WRAPPERS = {
    "OptimizedModule": "_orig_mod",
    "DistributedDataParallel": "module",
    "DataParallel": "module",
}
"""What torch.compile and others make of a module, and where that is in it."""
SHARDED = "FullyShardedDataParallel"


class Compacted(report.Compacted):
    """A smaller module, and what it lost: prints as a table, one row for a layer.

    ``.model`` is new, and shares nothing with the old one.
    """

    model: nn.Module

    def __init__(
        self,
        rows: Sequence[Layer],
        models: tuple[nn.Module, nn.Module],
        cut: Cut,
        operations: tuple[int, int],
        *,
        optimizer: Optimizer | None,
        inputs: Sequence[Inputs],
    ) -> None:
        counts = _count(models[0]), _count(models[1])
        super().__init__(rows, models[1], counts, operations, cut.indices)
        self.optimizer = optimizer
        """The optimizer for the smaller model, with its state, if one was given."""
        self._inputs = inputs

    def to_onnx(self, path: str | PathLike[str]) -> None:
        """Write the smaller module as an ONNX file, on which ONNX Runtime gives the same answers.

        That is measured on the example, and on inputs of other sizes where these may change, to
        rounding in the module's type and on the processor, before the file gets its place. Sizes
        that the module takes others of, as the batch, are free in the file.

        Args:
            path: where to write. A file that is there is replaced.

        Raises:
            MissingPackageError: onnx, onnxscript or onnxruntime is not installed: they come with
                the extra ``onnx``.
            ModelError: the module is in training mode, PyTorch cannot export it, ONNX Runtime
                computes something else, or the file cannot be written.
        """
        from penalize.torch.compacting import onnx

        check_can_be_cut(self.model)
        onnx.write(self.model, self._inputs, Path(path))


def compact(
    model: nn.Module,
    inputs: Any,
    keywords: Mapping[str, Any] | None = None,
    *,
    biases: bool = False,
    optimizer: Optimizer | None = None,
) -> Compacted:
    """A smaller model with the same outputs: without units that are constant, or not read.

    A unit (a channel, a hidden unit, a head of attention) may go if its incoming weights are all
    zero, or the scale of its batch norm is, so that it is the same number c on every finite input,
    or if all of its outgoing weights are. What c added to its readers is put into their biases:
    b ← b + W[:, i]·c. Where that cannot be exact (a norm over the units, a border of zeros, a layer
    without a bias, an operator that is not known) the unit stays, and the table says why.

    The model is followed on the example, and on inputs that are made of it, of which all sizes that
    may change are others (and all numbers that are no tensors): so a sum of c over a length is no
    constant. Branches of its code that neither takes are not seen. Outputs are equal to rounding:
    that is measured, in float64, on both and on random numbers, before anything is returned. And
    where code counts units, as ``x[:, :4]`` does, the smaller model is followed too.

    Args:
        model: a module in evaluation mode; it is left as it is.
        inputs: what to call it with: a tensor, or a tuple of arguments. A small batch will do.
        keywords: arguments by name.
        biases: whether linear and convolutional layers without a bias may be given one, to hold
            what constants add.
        optimizer: an optimizer of the model; ``.optimizer`` of the result goes on with the smaller
            one, its state cut along. A plan has to be attached to that anew.

    Returns:
        The smaller model as ``.model``, and what each layer lost.

    Raises:
        ModelError: the model is in training mode, compiled, wrapped or sharded, has lazy parameters
            or such as hooks compute, or ``torch.export`` cannot follow it.
        CompactError: the outputs would differ, whichever units stay: nothing is returned.

    Warns:
        NothingToCutWarning: no unit may go.
    """
    given = given_as(inputs, keywords)
    check_can_be_cut(model)
    source = with_biases(model) if biases else model
    tried = [given, *others(model, given)]
    wiring = traced(source, *tried)
    what, smaller = proven(model, source, wiring, tried)
    rows = _layers(wiring, what)
    if not what.indices:
        warnings.warn(_why_not_smaller(model, rows), NothingToCutWarning, stacklevel=2)
    return Compacted(
        rows,
        (model, smaller),
        what,
        (_operations(model, given), _operations(smaller, given)),
        optimizer=None if optimizer is None else carried_over(optimizer, model, smaller, what),
        inputs=tried,
    )


def given_as(inputs: Any, keywords: Mapping[str, Any] | None) -> Inputs:
    """What to call a model with: arguments, and those by name, none of them in a graph."""
    arguments = inputs if isinstance(inputs, tuple | list) else (inputs,)
    found: Inputs = pytree.tree_map_only(Tensor, Tensor.detach, (arguments, dict(keywords or {})))
    return found


def check_can_be_cut(model: nn.Module) -> None:
    """Refuse a model in training mode, or without parameters that could be cut."""
    kind = type(model).__name__
    if not isinstance(model, nn.Module):
        raise ModelError(f"compact got a {kind}", "pass a torch.nn.Module, and then its inputs")
    for path, module in model.named_modules():
        names = {each.__name__ for each in type(module).__mro__}
        for name in names & WRAPPERS.keys():
            whole = f"model.{path}".rstrip(".")
            raise ModelError(
                f"what compact got as {whole} is {_a(name)}, which has the module in it",
                f"compact {whole}.{WRAPPERS[name]} in its place, and wrap the result anew",
            )
        if SHARDED in names or any(is_sharded(p) for p in module.parameters(recurse=False)):
            raise ModelError(
                f"the parameters of this {kind} are sharded, and compact looks at whole ones",
                "load get_model_state_dict(model, options=StateDictOptions(full_state_dict=True)) "
                "into the model as it was before sharding, and compact that",
            )
    if any(module.training for module in model.modules()):
        raise ModelError(
            f"a {kind} in training mode has no constants behind dropout or a norm",
            "call model.eval() before it is compacted, and train() on the result",
        )
    if any(torch.nn.parameter.is_lazy(p) for p in model.parameters()):
        raise ModelError(
            f"a {kind} has lazy parameters, which have no shape yet",
            "call the model once, on inputs of the right sizes, before it is compacted",
        )
    for path, module in model.named_modules():
        for name, x in vars(module).items():
            if isinstance(x, Tensor) and not x.is_leaf:
                whole = f"{path}.{name}".lstrip(".")
                raise ModelError(
                    f"{whole!r} of a {kind} is computed by a hook, and is no parameter",
                    'make it one: torch.nn.utils.prune.remove(module, "weight") behind pruning '
                    "with masks, torch.nn.utils.remove_weight_norm(module) behind weight_norm",
                )


def _a(name: str) -> str:
    return f"an {name}" if name[0] in "AEIOU" else f"a {name}"


def _layers(wiring: Wiring, what: Cut) -> list[Layer]:
    found = []
    for name in wiring.units.weights:
        if name in wiring.written:
            made = wiring.units.roots(wiring.written[name]).tolist()
            left = sum(root not in what.gone for root in made)
            found.append(Layer(name, len(made), left, what.kept.get(name, {})))
    return found


def _why_not_smaller(model: nn.Module, rows: Sequence[Layer]) -> str:
    small = sum(
        int(((w != 0) & (w.abs() < 1e-3 * w.abs().max())).sum())
        for w in model.parameters()
        if w.numel()
    )
    zero = sum(int((w == 0).sum()) for w in model.parameters())
    return report.why_not_smaller(type(model).__name__, rows, zero, small)


def _count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _operations(model: nn.Module, given: Any) -> int:
    counter = FlopCounterMode(display=False)
    # It waits for gradients of parameters that are given to a module, where there are none.
    model = copy.deepcopy(model).requires_grad_(False)
    with counter:
        outputs(model, given)
    return int(counter.get_total_flops())
