"""NumPy: the reference that every other framework is tested against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from penalize.errors import ArrayError

Array = Any

framework = "numpy"
sign = np.sign
sqrt = np.sqrt
clip = np.clip
where = np.where
abs = np.abs
reshape = np.reshape
transpose = np.transpose
total = np.sum


def shape(w: Array) -> tuple[int, ...]:
    return tuple(w.shape)


def wide(w: Array) -> Array:
    if not np.issubdtype(w.dtype, np.floating):
        raise ArrayError(f"a NumPy array of dtype {w.dtype}", "a real floating-point dtype")
    return w if w.dtype.itemsize >= 4 else w.astype(np.float32)


def shares(w: Array) -> list[tuple[int, Array]]:
    return [(1, w)]


def like(x: Array, w: Array) -> Array:
    return np.asarray(x, dtype=w.dtype)


def constant(values: Sequence[float], x: Array) -> Array:
    return np.asarray(values, dtype=x.dtype)


def sum(x: Array, axes: Sequence[int] | None = None) -> Array:
    return np.sum(x) if axes is None else np.sum(x, axis=tuple(axes), keepdims=True)


def segment_sum(x: Array, ids: Sequence[int], count: int) -> Array:
    return np.bincount(np.asarray(ids, dtype=np.intp), weights=x, minlength=count).astype(x.dtype)


def take(x: Array, ids: Sequence[int]) -> Array:
    return x[np.asarray(ids, dtype=np.intp)]
