"""The proof that a smaller model answers as the one that it was cut from."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

Inputs = tuple[Sequence[Any], dict[str, Any]]

ROUNDING = 1e4
"""How many units of rounding, relative to the largest output, outputs may differ by."""


def why_not_equal(model: nn.Module, smaller: nn.Module, inputs: Inputs) -> str:
    """Where two models differ on inputs of these kinds, and by how much; empty if nowhere."""
    for which, given in (("the example", inputs), ("random inputs", _random(inputs))):
        expected, found = _outputs(model, given), _outputs(smaller, given)
        for a, b in zip(expected, found, strict=True):
            if a.shape != b.shape:
                return f"an output of shape {tuple(a.shape)} has become one of {tuple(b.shape)}"
            if _is_apart(a, b):
                difference = _apart(a, b)
                where = _begins(model, smaller, given)
                return f"on {which} outputs are {difference:.1e} of the largest apart{where}"
    return ""


def _is_apart(a: Tensor, b: Tensor) -> bool:
    return not _apart(a, b) <= ROUNDING * torch.finfo(a.dtype).eps


def _apart(a: Tensor, b: Tensor) -> float:
    if not a.numel():
        return 0.0
    same = (a == b) | (a.isnan() & b.isnan())
    scale = a[a.isfinite()].abs().amax().clamp(min=1e-30) if a.isfinite().any() else a.new_ones(())
    return float((torch.where(same, 0.0, a - b).abs() / scale).amax())


def _outputs(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    args, kwargs = copy.deepcopy(inputs)
    with torch.no_grad():
        leaves = pytree.tree_leaves(_plainly(model(*args, **kwargs)))
    return [x if x.is_floating_point() else x.double() for x in leaves if isinstance(x, Tensor)]


def _plainly(output: Any) -> Any:
    """Outputs of classes that are mappings, as transformers has them, as what they hold."""
    return dict(output) if hasattr(output, "to_tuple") else output


def in_float64(model: nn.Module, inputs: Inputs) -> tuple[nn.Module, Inputs] | None:
    """A copy of a model in float64, and its inputs; None if it has another type in its code."""
    try:
        wide, given = copy.deepcopy(model).double(), pytree.tree_map(_widened, inputs)
        outputs = _outputs(wide, given)
    except (RuntimeError, TypeError):
        return None
    return (wide, given) if all(x.dtype == torch.float64 for x in outputs) else None


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


def _begins(model: nn.Module, smaller: nn.Module, inputs: Inputs) -> str:
    """The first module whose outputs differ, among those that have their old shape."""
    before, after = (_outputs_of_modules(each, inputs) for each in (model, smaller))
    for name, a in before.items():
        b = after.get(name)
        alike = b is not None and a.shape == b.shape and a.is_floating_point()
        if b is not None and alike and _is_apart(a, b):
            return f", beginning in {name!r}"
    return ""


def _outputs_of_modules(model: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}

    def note(name: str, output: Any) -> None:
        if isinstance(output, Tensor):
            found.setdefault(name, output.clone())

    handles = [
        module.register_forward_hook(lambda _m, _i, output, name=name: note(name, output))
        for name, module in model.named_modules()
        if name
    ]
    try:
        _outputs(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found
