"""TensorFlow: eager tensors, graph tensors of TF 2 and TF 1, and variables."""

from __future__ import annotations

import builtins
import itertools
import operator
import re
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


_SHARD = re.compile(r"(.*/part_)\d+:0")


def shares(w: Array) -> list[tuple[int, Array]]:
    # get_variable asks for the penalty of a shard as soon as it is made, when it does not yet know
    # its place, and the later ones do not exist. So the first stands for itself, and the last, once
    # it is there, for the difference to the whole.
    shards = _shards_of(w)
    placed = shards[0]._get_save_slice_info() if shards else None
    if placed is None or w is shards[0]:
        return [(1, w)]
    if w is shards[-1]:
        cut = map(operator.ne, placed.full_shape, placed.var_shape)
        axis = list(cut).index(True)
        if builtins.sum(v.shape[axis] for v in shards) == placed.full_shape[axis]:
            return [(1, tf.concat(shards, axis)), (-1, shards[0])]
    return [(1, w), (-1, w)]


def _shards_of(w: Array) -> list[Array]:
    """The shards of the same variable that exist by now, in their order."""
    found = _SHARD.fullmatch(w.name) if isinstance(w, tf.Variable) and not _is_eager(w) else None
    if found is None:
        return []
    graph, keys = w.graph, tf.compat.v1.GraphKeys
    known = graph.get_collection(keys.GLOBAL_VARIABLES) + graph.get_collection(keys.LOCAL_VARIABLES)
    by_name = {v.name: v for v in known}
    names = (f"{found[1]}{number}:0" for number in itertools.count())
    return list(itertools.takewhile(lambda v: v is not None, map(by_name.get, names)))


def _is_eager(w: Array) -> bool:
    return tf.executing_eagerly() or not hasattr(w, "graph")


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
