"""The strengths of a path: a grid from the largest one, or those that are given."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from penalize.errors import PathError, StrengthError
from penalize.regularizers.base import check_strength
from penalize.selection.folds import check_whole

MOST = 10_000
"""More strengths than that are no path."""

AUTO = 20
"""The number of strengths that ``"auto"`` has."""

SMALLEST = 1e-3
"""The smallest of them, as a part of the largest."""

ROUNDING = 1e-5
"""The part by which they begin above the largest, so that rounding leaves nothing there, too."""


def geometric(largest: float, smallest: float, count: int) -> list[float]:
    """``count`` strengths from the largest to the smallest, each the same part of the last.

    Raises:
        PathError: they are not finite and above 0, or the count is less than one.
    """
    if not (0 < smallest <= largest < math.inf and count >= 1):
        raise PathError(
            f"a grid of {count!r} strengths from {largest!r} to {smallest!r}",
            "expected finite numbers above 0, the larger one first, and a count of at least 1",
        )
    ratio = (smallest / largest) ** (1 / max(count - 1, 1))
    return [largest * ratio**i for i in range(count)]


def grid_of(strengths: Any, largest: Callable[[], float]) -> list[float]:
    """The strengths that the argument ``strengths`` of a path means, from strong to weak.

    Args:
        strengths: ``"auto"``, a number of them, or the strengths.
        largest: tells where a grid begins, if it is asked.

    Raises:
        PathError: they are none of these, or too many.
    """
    count = AUTO if isinstance(strengths, str) and strengths == "auto" else strengths
    if isinstance(count, int) and not isinstance(count, bool):
        check_whole("strengths", count, 1, MOST)
        top = largest() * (1 + ROUNDING)
        return geometric(top, SMALLEST * top, count)
    if isinstance(count, str) or not isinstance(count, Iterable):
        raise PathError(f"strengths={strengths!r}", 'expected "auto", a number of them, or a list')
    try:
        found = [check_strength("path", "strength", s) for s in islice(count, MOST + 1)]
    except StrengthError as error:
        raise PathError(f"strengths={strengths!r}", str(error)) from None
    if not found:
        raise PathError(
            f"strengths={strengths!r} has none", "pass a list: a generator gives its values once"
        )
    if len(found) > MOST:
        raise PathError("strengths has too many", f"expected at most {MOST:,}")
    if len(set(found)) < len(found):
        raise PathError(f"strengths={found!r}", "expected each of them once")
    return sorted(found, reverse=True)
