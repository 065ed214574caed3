"""TensorFlow: eager tensors, graph tensors of TF 2 and TF 1, and variables."""

from __future__ import annotations

import builtins
import math
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.saved_model import save_context  # TensorFlow exports none

from penalize.backends import Fixed
from penalize.errors import ArrayError, NoDerivativeError

Array = Any

framework = "tensorflow"
abs = tf.abs  # its derivative at 0 is 0
sign = tf.sign
sqrt = tf.sqrt
log1p = tf.math.log1p
cos = tf.cos
clip = tf.clip_by_value
maximum = tf.maximum
reshape = tf.reshape
transpose = tf.transpose
broadcast = tf.broadcast_to
concat = tf.concat
stop = tf.stop_gradient
total = tf.reduce_sum


def where(condition: Array, a: Array, b: Array) -> Array:
    # A number would become float32 before it meets the other branch, or is cast.
    dtype = (a if tf.is_tensor(a) else b).dtype
    a, b = (tf.cast(x, dtype) if tf.is_tensor(x) else tf.constant(x, dtype) for x in (a, b))
    return tf.where(condition, a, b)


def shape(w: Array) -> tuple[int, ...]:
    return tuple(w.shape)


def wide(w: Array) -> Array:
    if isinstance(w, _IN_PARTS):
        raise ArrayError(f"a {type(w).__name__}", "a dense tensor, such as tf.sparse.to_dense(w)")
    # A variable becomes a tensor; a partitioned one becomes whole.
    x = tf.convert_to_tensor(w)
    if not x.dtype.is_floating:
        raise ArrayError(f"a TensorFlow tensor of {x.dtype!r}", "a real floating-point dtype")
    return x if x.dtype.size >= 4 else tf.cast(x, tf.float32)


_IN_PARTS = (tf.SparseTensor, tf.RaggedTensor, tf.TensorArray)

# What get_variable calls a shard; a name that was taken has a number behind it.
_SHARD = re.compile(r"(.*)/part_\d+(_\d+)?:0")


def shares(w: Array) -> list[tuple[int, Array]]:
    # get_variable asks for the penalty of a shard as soon as it is made, when it does not yet know
    # its place, and the later ones do not exist. So the first stands for itself, and the last, once
    # it is there, for the difference to the whole.
    shards = _shards_of(w)
    placed = place_of(shards[0])
    if placed is None or w is shards[0]:
        return [(1, w)]
    if w is shards[-1]:
        cut = map(operator.ne, placed.full_shape, placed.var_shape)
        axis = list(cut).index(True)
        found = builtins.sum(v.shape[axis] for v in shards)
        if found == placed.full_shape[axis]:
            return [(1, tf.concat(shards, axis)), (-1, shards[0])]
    return [(1, w), (-1, w)]


def _shards_of(w: Array) -> list[Array]:
    """The shards of the same variable that exist by now, in their order; w alone if it is none."""
    if not isinstance(w, tf.Variable) or tf.executing_eagerly() or not hasattr(w, "graph"):
        return [w]
    own = place_of(w)
    named = _SHARD.fullmatch(w.name) if own is None else None
    name = own.full_name if own is not None else named[1] if named else None
    if name is None:
        return [w]
    keys = tf.compat.v1.GraphKeys
    known = [v for key in (keys.GLOBAL_VARIABLES, keys.LOCAL_VARIABLES) for v in _in(w.graph, key)]
    # AutoGraph reads this, and does not know ":=".
    placed = [v for v in known if getattr(place_of(v), "full_name", None) == name]
    if own is None:
        return [*placed, w]
    whole, found = math.prod(own.full_shape), builtins.sum(math.prod(v.shape) for v in placed)
    if found != whole:
        raise ArrayError(
            f"a shard of {name!r}, whose other shards are in no collection of variables",
            "shards in GraphKeys.GLOBAL_VARIABLES or LOCAL_VARIABLES, or a regularizer that is a "
            "sum over elements",
        )
    return sorted(placed, key=lambda v: tuple(place_of(v).var_offset))


def _in(graph: Any, key: str) -> list[Array]:
    found: list[Array] = graph.get_collection(key)
    return found


def place_of(w: Array) -> Any:
    """Where a shard lies in its whole; None for what is no shard, or does not know yet."""
    return getattr(w, "_get_save_slice_info", lambda: None)()


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


pick = take


def full(shape: Sequence[int], value: float, x: Array) -> Array:
    return tf.fill(tuple(shape), tf.constant(value, x.dtype))


def eye(size: int, x: Array) -> Array:
    return tf.eye(size, dtype=x.dtype)


def fixed(values: Fixed, w: Array) -> Array:
    # Not kept: in a graph it would be of that graph.
    dtype = tf.as_dtype(w.dtype).base_dtype
    return tf.constant(values.numpy(), dtype if dtype.size >= 4 else tf.float32)


def numpy(w: Array) -> Any:
    x = wide(w)
    if hasattr(x, "numpy"):
        return np.array(x.numpy())
    session = tf.compat.v1.get_default_session()
    if session is None:
        raise ArrayError(
            "a tensor of a graph whose value was asked for outside of a session",
            "an array, or a call inside of a session",
        )
    return np.array(session.run(x))


def real(x: Array) -> Array:
    x = tf.convert_to_tensor(x)
    return x if x.dtype.is_floating else tf.cast(x, tf.float64)


def eps(w: Array) -> float:
    kind = tf.as_dtype(w.dtype).as_numpy_dtype  # np.finfo does not know bfloat16
    return float(np.nextafter(kind(1), kind(2))) - 1


def tiny(w: Array) -> float:
    # np.finfo does not know bfloat16, which has float32's exponents
    kind = tf.float32 if w.dtype == tf.bfloat16 else tf.as_dtype(w.dtype)
    return float(np.finfo(kind.as_numpy_dtype).tiny)


def max(x: Array) -> Array:
    return tf.reduce_max(x, axis=-1, keepdims=True)


def descending(x: Array) -> Array:
    return tf.argsort(x, axis=-1, direction="DESCENDING")


def along(x: Array, order: Array) -> Array:
    return tf.gather(x, order, batch_dims=len(x.shape) - 1)


def cumsum(x: Array) -> Array:
    return tf.cumsum(x, axis=-1)


def svd(x: Array) -> tuple[Array, Array, Array]:
    s, u, v = tf.linalg.svd(x, full_matrices=False)
    return u, s, tf.linalg.matrix_transpose(v)


def guarded(value: Array, w: Array, check: Callable[[], None]) -> Array:
    def identity(value: Array, w: Array) -> Any:
        def slopes(_: Array) -> tuple[Array, Array]:
            if not save_context.in_save_context():  # which traces each gradient there is
                check()
            return tf.zeros_like(value), tf.zeros_like(w)

        return tf.identity(value), slopes

    return tf.custom_gradient(identity)(value, w)


def gradient(f: Callable[[Array], Array], w: Array) -> Array:
    with tf.GradientTape() as tape:
        tape.watch(w)
        value = f(w)
    return tape.gradient(value, w, unconnected_gradients="zero")


def host(f: Callable[..., Any], back: Callable[..., Any], *arrays: Array) -> Array:
    def found(*arrays: Array) -> Any:
        def slopes(g: Array) -> list[Array]:
            return list(tf.unstack(_once(back, (len(arrays),), g, *arrays)))

        return _once(f, (), *arrays), slopes

    return tf.custom_gradient(found)(*arrays)


def _once(f: Callable[..., Any], stacked: tuple[int, ...], *arrays: Array) -> Array:
    """What a function gives on the host, which has no derivative."""

    def refuse(*_: Array) -> Any:
        raise NoDerivativeError()

    def called(*arrays: Array) -> Any:
        found = tf.numpy_function(f, arrays, arrays[0].dtype)
        found.set_shape((*stacked, *arrays[0].shape))
        return found, refuse

    return tf.custom_gradient(called)(*arrays)
