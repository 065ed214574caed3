"""Other sizes that a model takes, for what is a constant for one size only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

Shape = tuple[int, ...]
Places = tuple[tuple[int, int], ...]
"""Arrays and their dimensions."""


def other_shapes(
    shapes: Sequence[Shape], may_be: Callable[[Sequence[Shape]], bool]
) -> list[list[Shape]]:
    """Shapes that are larger, and smaller, in every size that may change.

    Which sizes are one, as the batch of several inputs, is tried: those that are equal, or stand
    at the same place, or one alone.

    Args:
        shapes: of the inputs.
        may_be: whether a model takes inputs of other shapes.
    """
    return [_changed(shapes, may_be, sizes) for sizes in (_larger, _smaller)]


def _changed(
    shapes: Sequence[Shape],
    may_be: Callable[[Sequence[Shape]], bool],
    sizes: Callable[[int], list[int]],
) -> list[Shape]:
    found, fixed = [*shapes], {*_places(shapes)}
    for together in _groups(shapes):
        i, d = together[0]
        for size in sizes(shapes[i][d]) if fixed.issuperset(together) else ():
            tried = [
                tuple(size if (i, d) in together else n for d, n in enumerate(shape))
                for i, shape in enumerate(found)
            ]
            if may_be(tried):
                found, fixed = tried, fixed - {*together}
                break
    return found


def _larger(n: int) -> list[int]:
    """Sizes to try: such that halves of them are others too, unless they are large."""
    if n <= 1:
        return [2, 3][: 2 * n]
    return [2 * n + 1, 2 * n, n + 1] if n <= 16 else [n + (n // 2 if n <= 64 else 0) + 1, 2 * n]


def _smaller(n: int) -> list[int]:
    return [size for size in (n // 2 - 1, n // 2, n - 1) if size > 0]


def _places(shapes: Sequence[Shape]) -> Places:
    return tuple((i, d) for i, shape in enumerate(shapes) for d in range(len(shape)))


def _groups(shapes: Sequence[Shape]) -> list[Places]:
    by: dict[Any, list[tuple[int, int]]] = defaultdict(list)
    for i, d in _places(shapes):
        by["size", shapes[i][d]].append((i, d))
        by["place", d].append((i, d))
        by["one", i, d].append((i, d))
    order = sorted(by, key=lambda key: ("size", "place", "one").index(key[0]))
    return [*dict.fromkeys(tuple(by[key]) for key in order)]
