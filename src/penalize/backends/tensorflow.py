"""TensorFlow: eager tensors, graph tensors of TF 2 and TF 1, and variables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from penalize.errors import ArrayError

Array = Any

abs = tf.abs  # its derivative at 0 is 0
sign = tf.sign
sqrt = tf.sqrt
clip = tf.clip_by_value
reshape = tf.reshape
transpose = tf.transpose


def where(condition: Array, a: Array, b: Array) -> Array:
    # In a graph a number would become float32 before it meets the other branch.
    dtype = (a if tf.is_tensor(a) else b).dtype
    return tf.where(condition, tf.cast(a, dtype), tf.cast(b, dtype))


def wide(w: Array) -> Array:
    # A variable becomes a tensor; a partitioned one becomes whole.
    x = tf.convert_to_tensor(w)
    if not x.dtype.is_floating:
        raise ArrayError(f"a TensorFlow tensor of {x.dtype!r}", "a real floating-point dtype")
    return x if x.dtype.size >= 4 else tf.cast(x, tf.float32)


def like(x: Array, w: Array) -> Array:
    return tf.cast(x, tf.as_dtype(w.dtype).base_dtype)


def constant(values: Sequence[float], x: Array) -> Array:
    return tf.constant(values, dtype=x.dtype)


def sum(x: Array, axes: Sequence[int] | None = None) -> Array:
    return tf.reduce_sum(x) if axes is None else tf.reduce_sum(x, axis=list(axes), keepdims=True)


def segment_sum(x: Array, ids: Sequence[int], count: int) -> Array:
    return tf.math.unsorted_segment_sum(x, tf.constant(ids, tf.int32), count)


def take(x: Array, ids: Sequence[int]) -> Array:
    return tf.gather(x, tf.constant(ids, tf.int32))
