"""The proof that a smaller model answers as the one that it was cut from, in arrays of NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Run = Callable[[Sequence[Array]], Sequence[Array]]
"""Inputs → outputs."""

EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
"""A unit of rounding."""
ROUNDING = 1e4
"""How many units of rounding, relative to the largest that differs, outputs may differ by."""
ROUGHLY = 0.1
"""How much they may differ by where rounding is all that is left of differences."""


def why_not_equal(
    model: Run, smaller: Run, inputs: Sequence[Array], eps: float, roughly: bool = False
) -> str:
    """Where two models differ, on an example and on random inputs; empty if nowhere.

    Args:
        model: the one.
        smaller: the other.
        inputs: the example.
        eps: rounding in what they compute in.
        roughly: whether they are known to be equal but for rounding.
    """
    tolerance = ROUGHLY if roughly else min(ROUGHLY, ROUNDING * eps)
    for where, given in (("the example", inputs), ("random inputs", [*_drawn(inputs)])):
        for a, b in zip(model(given), smaller(given), strict=True):
            if a.shape != b.shape or a.dtype != b.dtype:
                return (
                    f"an output of shape {a.shape} and {a.dtype} has become one of {b.shape} and "
                    f"{b.dtype}"
                )
            difference = _apart(a, b)
            if not difference <= tolerance:
                return f"on {where} outputs are {difference:.1e} of the largest apart"
    return ""


def _drawn(inputs: Sequence[Array]) -> Iterator[Array]:
    """Random numbers in place of real ones, twice as far spread; others stay."""
    random = np.random.default_rng(0)
    for x in inputs:
        if x.dtype.kind in "biuc" or not x.size:  # bfloat16 has a kind of its own
            yield x
        else:
            scale = float(np.std(x.astype(np.float64))) or 1.0
            yield np.asarray(2 * scale * random.standard_normal(x.shape)).astype(x.dtype)


def _apart(a: Array, b: Array) -> float:
    """The largest difference, relative to the largest number that differs."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    other = ~((a == b) | (np.isnan(a) & np.isnan(b)))
    if not other.any():
        return 0.0
    a, b = a[other], b[other]
    finite = np.abs(a[np.isfinite(a)])
    with np.errstate(invalid="ignore"):
        return float(np.max(np.abs(a - b)) / max(float(finite.max(initial=0.0)), 1e-3))
