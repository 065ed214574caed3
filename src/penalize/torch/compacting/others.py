"""Other inputs that a model takes: of other sizes, for what is a constant for one size only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from penalize.torch.compacting.proof import Inputs, taken

Places = tuple[tuple[int, int], ...]
"""Tensors and their dimensions."""


def others(model: nn.Module, inputs: Inputs) -> list[Inputs]:
    """Inputs that are larger, and smaller, in every size that may change; none if none may.

    Which sizes are one, as the batch of several inputs, is tried: those that are equal, or stand
    at the same place, or one alone. Numbers are others too.
    """
    found = [_changed(model, inputs, sizes) for sizes in (_larger, _smaller)]
    return [each for each in found if each is not None]


def _changed(model: nn.Module, inputs: Inputs, sizes: Callable[[int], list[int]]) -> Inputs | None:
    leaves, form = pytree.tree_flatten(inputs)
    found, fixed = leaves, {*_places(leaves)}

    def may_be(tried: list[Any]) -> bool:
        return taken(model, pytree.tree_unflatten(tried, form)) is not None

    for together in _groups(leaves):
        i, d = together[0]
        for size in sizes(leaves[i].shape[d]) if fixed.issuperset(together) else ():
            tried = _resized(found, together, size)
            if may_be(tried):
                found, fixed = tried, fixed - {*together}
                break
    for i, x in enumerate(leaves):
        if type(x) in (int, float) and may_be([*found[:i], x + 1, *found[i + 1 :]]):
            found = [*found[:i], x + 1, *found[i + 1 :]]
    return None if found is leaves else pytree.tree_unflatten(found, form)


def _larger(n: int) -> list[int]:
    """Sizes to try: such that halves of them are others too, unless they are large."""
    if n <= 1:
        return [2, 3][: 2 * n]
    return [2 * n + 1, 2 * n, n + 1] if n <= 16 else [n + (n // 2 if n <= 64 else 0) + 1, 2 * n]


def _smaller(n: int) -> list[int]:
    return [size for size in (n // 2 - 1, n // 2, n - 1) if size > 0]


def _places(leaves: Sequence[Any]) -> Places:
    return tuple(
        (i, d) for i, x in enumerate(leaves) if isinstance(x, Tensor) for d in range(x.ndim)
    )


def _groups(leaves: Sequence[Any]) -> list[Places]:
    by: dict[Any, list[tuple[int, int]]] = defaultdict(list)
    for i, d in _places(leaves):
        by["size", leaves[i].shape[d]].append((i, d))
        by["place", d].append((i, d))
        by["one", i, d].append((i, d))
    order = sorted(by, key=lambda key: ("size", "place", "one").index(key[0]))
    return [*dict.fromkeys(tuple(by[key]) for key in order)]


def _resized(leaves: Sequence[Any], together: Places, size: int) -> list[Any]:
    """Tensors that repeat themselves along dimensions, or end sooner."""
    found = [*leaves]
    for i, d in together:
        n = found[i].shape[d]
        times = [1] * found[i].ndim
        times[d] = -(-size // n)
        found[i] = found[i].repeat(times).narrow(d, 0, size)
    return found
