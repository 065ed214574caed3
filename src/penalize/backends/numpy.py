"""NumPy: the reference that every other framework is tested against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from penalize.backends import Fixed
from penalize.errors import ArrayError

Array = Any

framework = "numpy"
sign = np.sign
sqrt = np.sqrt
log1p = np.log1p
cos = np.cos
clip = np.clip
maximum = np.maximum
where = np.where
abs = np.abs
reshape = np.reshape
transpose = np.transpose
broadcast = np.broadcast_to
concat = np.concatenate
total = np.sum


def shape(w: Array) -> tuple[int, ...]:
    return tuple(w.shape)


def wide(w: Array) -> Array:
    if not np.issubdtype(w.dtype, np.floating):
        raise ArrayError(f"a NumPy array of dtype {w.dtype}", "a real floating-point dtype")
    if isinstance(w, np.ma.MaskedArray) and np.ma.is_masked(w):
        raise ArrayError(
            "a masked array, whose mask no gradient could keep",
            "a plain one, such as w.filled(0.0)",
        )
    if isinstance(w, np.ndarray):
        w = np.asarray(w)  # an np.matrix multiplies in another way
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


pick = take


def full(shape: Sequence[int], value: float, x: Array) -> Array:
    return np.full(tuple(shape), value, dtype=x.dtype)


def eye(size: int, x: Array) -> Array:
    return np.eye(size, dtype=x.dtype)


def fixed(values: Fixed, w: Array) -> Array:
    return values.numpy().astype(wide(w).dtype)


def numpy(w: Array) -> Array:
    return np.array(wide(w))


def real(x: Array) -> Array:
    return np.asarray(x, dtype=np.float64)


def eps(w: Array) -> float:
    return float(np.finfo(w.dtype).eps)


def tiny(w: Array) -> float:
    return float(np.finfo(w.dtype).tiny)


def max(x: Array) -> Array:
    return np.max(x, axis=-1, keepdims=True)


def descending(x: Array) -> Array:
    return np.argsort(-x, axis=-1)


def along(x: Array, order: Array) -> Array:
    return np.take_along_axis(x, order, -1)


def cumsum(x: Array) -> Array:
    return np.cumsum(x, axis=-1)


def svd(x: Array) -> tuple[Array, Array, Array]:
    if x.dtype.itemsize > 8:
        raise ArrayError(
            f"a NumPy array of dtype {x.dtype}, which has no singular value decomposition",
            "float64",
        )
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    return u, s, vt


def stop(x: Array) -> Array:
    return x


def gradient(f: Callable[[Array], Array], w: Array) -> Array:
    raise ArrayError(
        "a NumPy array, and this regularizer has no gradient of its own",
        "an array of a framework that differentiates, or a regularizer with a gradient",
    )


def host(f: Callable[..., Array], back: Callable[..., Array], *arrays: Array) -> Array:
    return f(*arrays)
