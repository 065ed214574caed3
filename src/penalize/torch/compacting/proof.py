"""The proof that a smaller model answers as the one that it was cut from."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

Inputs = tuple[Sequence[Any], dict[str, Any]]

ROUNDING = 1e4
"""How many units of rounding, relative to the largest that differs, outputs may differ by."""
ROUGHLY = 0.1
"""How much they may differ by where rounding is all that is left of differences."""


class Difference(NamedTuple):
    """How two models differ.

    Args:
        why: as a part of a sentence.
        place: the module in which it begins; None where none can be told.
        rank: how many modules are left before that.
        runs: whether the smaller one runs.
    """

    why: str
    place: str | None
    rank: int
    runs: bool = True


def difference(
    model: nn.Module, smaller: nn.Module, inputs: Sequence[Inputs], roughly: bool = False
) -> Difference | None:
    """Where two models differ on inputs of these kinds, and by how much; None if nowhere.

    Args:
        model: the one.
        smaller: the other.
        inputs: an example, and others of other sizes.
        roughly: whether they are known to be equal but for rounding.
    """
    tolerance = ROUGHLY if roughly else min(ROUGHLY, ROUNDING * _unit(model))
    drawn = (("random inputs", _random(each)) for each in inputs)
    for where, given in chain([("the example", inputs[0])], drawn):
        expected = outputs(model, given) if given is inputs[0] else taken(model, given)
        if expected is None:
            continue
        try:
            found = outputs(smaller, given)
        except Exception as error:  # noqa: BLE001 - whatever the model's code raises
            calls = _called(aside(smaller), given)
            place = calls.entered[-1] if calls.entered else ""
            return Difference(f"it cannot be run: {error}", place, len(calls.made), runs=False)
        why = _why_not_alike(expected, found, tolerance)
        if why:
            begins, rank = _begins(model, smaller, given, tolerance)
            beginning = "" if begins is None else f", beginning in {begins!r}"
            return Difference(f"on {where} {why}{beginning}", begins, rank)
    return None


def why_not_alike(expected: Sequence[Tensor], found: Sequence[Tensor], model: nn.Module) -> str:
    """How the outputs of a module differ from others; empty if they do not but for rounding."""
    if len(expected) != len(found):
        return f"{len(expected)} outputs have become {len(found)}"
    return _why_not_alike(expected, found, min(ROUGHLY, ROUNDING * _unit(model)))


def _why_not_alike(a: Sequence[Tensor], b: Sequence[Tensor], tolerance: float) -> str:
    for x, y in zip(a, b, strict=True):
        if x.shape != y.shape:
            return f"an output of shape {tuple(x.shape)} has become one of {tuple(y.shape)}"
        if x.dtype != y.dtype:
            return f"an output of {x.dtype} has become one of {y.dtype}"
        if not _apart(x, y) <= max(tolerance, ROUNDING * torch.finfo(x.dtype).eps):
            return f"outputs are {_apart(x, y):.1e} of the largest apart"
    return ""


def _unit(model: nn.Module) -> float:
    """Rounding in the narrowest type of a model's numbers."""
    return max(
        (torch.finfo(p.dtype).eps for p in model.parameters() if p.is_floating_point()),
        default=0.0,
    )


def _apart(a: Tensor, b: Tensor) -> float:
    if not a.numel():
        return 0.0
    other = ~((a == b) | (a.isnan() & b.isnan()))
    if not other.any():
        return 0.0
    # What is alike, as a mask of -1e9, is no measure of the rest.
    a, b = a[other], b[other]
    scale = a[a.isfinite()].abs().amax().clamp(min=1e-3) if a.isfinite().any() else a.new_ones(())
    return float(((a - b).abs() / scale).amax())


def outputs(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    """The tensors that a model makes, as real numbers; the model is left as it is."""
    args, kwargs = copy.deepcopy(inputs)
    with torch.no_grad():
        made = aside(model)(*args, **kwargs)
    return tensors_in(made)


def tensors_in(made: Any) -> list[Tensor]:
    """The tensors among outputs, as real numbers."""
    leaves = [x for x in pytree.tree_leaves(_plainly(made)) if isinstance(x, Tensor)]
    leaves = [torch.view_as_real(x) if x.is_complex() else x for x in leaves]
    return [x if x.is_floating_point() else x.double() for x in leaves]


def aside(model: nn.Module) -> nn.Module:
    """A copy that has the same parameters, for a call that may change all else."""
    return copy.deepcopy(model, {id(p): p for p in model.parameters()})


def taken(model: nn.Module, inputs: Inputs) -> list[Tensor] | None:
    """What a model makes of inputs that are made up; None if it does not take them."""
    try:
        return outputs(model, inputs)
    except Exception:  # noqa: BLE001 - it is for the model to say
        return None


def _plainly(output: Any) -> Any:
    """Outputs of classes that are mappings, as transformers has them, as what they hold."""
    return dict(output) if hasattr(output, "to_tuple") else output


def in_float64(model: nn.Module, inputs: Inputs) -> nn.Module | None:
    """A copy of a model in float64; None if it has another type in its code."""
    try:
        wide = copy.deepcopy(model).double()
        made = outputs(wide, widened(inputs))
    except (RuntimeError, TypeError):
        return None
    return wide if all(x.dtype == torch.float64 for x in made) else None


def widened(inputs: Inputs) -> Inputs:
    """Inputs in float64."""
    return pytree.tree_map(_widened, inputs)  # type: ignore[no-any-return]


def _widened(x: Any) -> Any:
    return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x


def _random(inputs: Inputs) -> Inputs:
    generator = torch.Generator().manual_seed(0)

    def drawn(x: Any) -> Any:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return x
        scale = float(x.std()) if x.numel() > 1 and float(x.std()) > 0 else 1.0
        found = 2 * scale * torch.randn(x.shape, generator=generator, dtype=torch.float64)
        return found.to(x.device, x.dtype)

    return pytree.tree_map(drawn, inputs)  # type: ignore[no-any-return]


def _begins(
    model: nn.Module, smaller: nn.Module, inputs: Inputs, tolerance: float
) -> tuple[str | None, int]:
    """The first module whose outputs differ, among those that have their old shape."""
    before, after = (_called(aside(each), inputs).made for each in (model, smaller))
    for rank, (name, a) in enumerate(before.items()):
        b = after.get(name)
        alike = b is not None and a.shape == b.shape and a.is_floating_point()
        if b is not None and alike and not _apart(a, b) <= tolerance:
            return name, rank
    return None, len(before)


class _Calls(NamedTuple):
    made: dict[str, Tensor]
    """Modules → their outputs, in their order."""
    entered: list[str]
    """Modules that are not left again."""


def _called(model: nn.Module, inputs: Inputs) -> _Calls:
    found = _Calls({}, [])

    def before(name: str) -> None:
        found.entered.append(name)

    def after(name: str, output: Any) -> None:
        found.entered.pop()
        if isinstance(output, Tensor):
            found.made.setdefault(name, output.clone())

    for name, module in model.named_modules():
        if name:
            module.register_forward_pre_hook(lambda *_, name=name: before(name))
            module.register_forward_hook(lambda _m, _i, output, name=name: after(name, output))
    args, kwargs = copy.deepcopy(inputs)
    with torch.no_grad(), contextlib.suppress(Exception):
        model(*args, **kwargs)
    return found
