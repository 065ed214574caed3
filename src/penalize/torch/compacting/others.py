"""Other inputs that a model takes: of other sizes, for what is a constant for one size only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from penalize.compacting.sizes import Shape, other_shapes
from penalize.torch.compacting.proof import Inputs, taken


def others(model: nn.Module, inputs: Inputs) -> list[Inputs]:
    """Inputs that are larger, and smaller, in every size that may change; none if none may.

    Numbers are others too.
    """
    leaves, form = pytree.tree_flatten(inputs)
    places = [i for i, x in enumerate(leaves) if isinstance(x, Tensor)]

    def made(shapes: Sequence[Shape]) -> list[Any]:
        found = [*leaves]
        for i, shape in zip(places, shapes, strict=True):
            found[i] = _resized(leaves[i], shape)
        return found

    def may_be(tried: list[Any]) -> bool:
        return taken(model, pytree.tree_unflatten(tried, form)) is not None

    before: list[Shape] = [tuple(leaves[i].shape) for i in places]
    found = []
    for shapes in other_shapes(before, lambda shapes: may_be(made(shapes))):
        tried, is_other = made(shapes), shapes != before
        for i, x in enumerate(leaves):
            if type(x) in (int, float) and may_be([*tried[:i], x + 1, *tried[i + 1 :]]):
                tried[i], is_other = x + 1, True
        if is_other:
            found.append(pytree.tree_unflatten(tried, form))
    return found


def _resized(x: Tensor, shape: Shape) -> Tensor:
    """A tensor that repeats itself along dimensions, or ends sooner."""
    for d, (n, size) in enumerate(zip(x.shape, shape, strict=True)):
        if n != size:
            times = [1] * x.ndim
            times[d] = -(-size // n)
            x = x.repeat(times).narrow(d, 0, size)
    return x
