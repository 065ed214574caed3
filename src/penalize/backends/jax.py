"""JAX: arrays, and tracers under its transformations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from penalize.backends import Fixed
from penalize.errors import ArrayError, NoDerivativeError

framework = "jax"
sign = jnp.sign
sqrt = jnp.sqrt
log1p = jnp.log1p
cos = jnp.cos
clip = jnp.clip
maximum = jnp.maximum
where = jnp.where
reshape = jnp.reshape
transpose = jnp.transpose
broadcast = jnp.broadcast_to
concat = jnp.concatenate
stop = jax.lax.stop_gradient
total = jnp.sum


@jax.custom_jvp
def abs(x: Array) -> Array:
    return jnp.abs(x)


@abs.defjvp
def _abs_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # jnp.abs has derivative 1 at 0, which would push zeros away.
    return jnp.abs(primals[0]), jnp.sign(primals[0]) * tangents[0]


def shape(w: Array) -> tuple[int, ...]:
    return tuple(w.shape)


def wide(w: Array) -> Array:
    if isinstance(w, np.ndarray):  # what JAX makes of NumPy's when it calls a function of ours
        w = jnp.asarray(w)
    if not isinstance(w, Array):
        raise ArrayError(f"a JAX {type(w).__name__}", "a dense array, such as w.todense()")
    if not jnp.issubdtype(w.dtype, jnp.floating):
        raise ArrayError(f"a JAX array of dtype {w.dtype}", "a real floating-point dtype")
    return w if w.dtype.itemsize >= 4 else w.astype(jnp.float32)


def shares(w: Array) -> list[tuple[int, Array]]:
    return [(1, w)]


def like(x: Array, w: Array) -> Array:
    return x.astype(w.dtype)


def constant(values: Sequence[float], x: Array) -> Array:
    return jnp.asarray(values, dtype=x.dtype)


def sum(x: Array, axes: Sequence[int] | None = None) -> Array:
    return jnp.sum(x) if axes is None else jnp.sum(x, axis=tuple(axes), keepdims=True)


def segment_sum(x: Array, ids: Sequence[int], count: int) -> Array:
    return jax.ops.segment_sum(x, _index(ids), num_segments=count)


def take(x: Array, ids: Sequence[int]) -> Array:
    return x[_index(ids)]


pick = take


def _index(ids: Sequence[int]) -> Any:
    return jnp.asarray(ids, dtype=jnp.int32)


def full(shape: Sequence[int], value: float, x: Array) -> Array:
    return jnp.full(tuple(shape), value, dtype=x.dtype)


def eye(size: int, x: Array) -> Array:
    return jnp.eye(size, dtype=x.dtype)


def fixed(values: Fixed, w: Array) -> Array:
    # Not kept: under a trace it would be of that trace.
    return jnp.asarray(values.numpy(), dtype=wide(w).dtype)


def numpy(w: Array) -> Any:
    return np.array(wide(w))


def real(x: Array) -> Array:
    return jnp.asarray(x, dtype=float)


def eps(w: Array) -> float:
    return float(jnp.finfo(w.dtype).eps)  # type: ignore[no-untyped-call]


def tiny(w: Array) -> float:
    return float(jnp.finfo(w.dtype).tiny)  # type: ignore[no-untyped-call]


def max(x: Array) -> Array:
    return jnp.max(x, axis=-1, keepdims=True)


def descending(x: Array) -> Array:
    return jnp.argsort(-x, axis=-1)


def along(x: Array, order: Array) -> Array:
    return jnp.take_along_axis(x, order, -1)


def cumsum(x: Array) -> Array:
    return jnp.cumsum(x, axis=-1)


def svd(x: Array) -> tuple[Array, Array, Array]:
    u, s, vt = jnp.linalg.svd(x, full_matrices=False)
    return u, s, vt


def gradient(f: Callable[[Array], Array], w: Array) -> Array:
    found: Array = jax.grad(f)(w)
    return found


def host(f: Callable[..., Any], back: Callable[..., Any], *arrays: Array) -> Array:
    @jax.custom_vjp
    def found(*arrays: Array) -> Array:
        return _once(f, 1, arrays)[0]

    def forward(*arrays: Array) -> tuple[Array, tuple[Array, ...]]:
        return found(*arrays), arrays

    def backward(arrays: tuple[Array, ...], g: Array) -> tuple[Array, ...]:
        return _once(back, len(arrays), (g, *arrays))

    found.defvjp(forward, backward)
    result: Array = found(*arrays)
    return result


def _once(f: Callable[..., Any], count: int, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
    """The arrays that a function gives on the host, which have no derivative."""
    of_one = jax.ShapeDtypeStruct(arrays[0].shape, arrays[0].dtype)  # type: ignore[no-untyped-call]

    def called(*arrays: Array) -> tuple[Any, ...]:
        held = [np.asarray(x) for x in arrays]
        shape = np.broadcast_shapes(*(x.shape for x in held))  # with the axes of a map in front
        return tuple(f(*held).reshape(count, *shape))

    @jax.custom_jvp
    def found(*arrays: Array) -> tuple[Array, ...]:
        results = (of_one,) * count
        given: tuple[Array, ...] = jax.pure_callback(
            called, results, *arrays, vmap_method="broadcast_all"
        )
        return given

    @found.defjvp
    def _refused(primals: Any, tangents: Any) -> Any:
        raise NoDerivativeError()

    given: tuple[Array, ...] = found(*arrays)
    return given


def repeated(step: Callable[[Array], Array], x: Array, count: int) -> Array:
    found: Array = jax.lax.fori_loop(0, count, lambda _, x: step(x), x)
    return found


def implicit(value: Array, f: Callable[..., Array], arrays: Sequence[Array]) -> Array:
    @jax.custom_jvp
    def held(value: Array, *arrays: Array) -> Array:
        return value

    @held.defjvp
    def _(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
        return primals[0], jax.jvp(f, primals[1:], tangents[1:])[1]

    found: Array = held(value, *arrays)
    return found


_NEWTON_STEPS, _BISECTIONS, _STEPS = 6, 7, 20


class _Root(NamedTuple):
    """Where the search for it stands, for each of them."""

    moving: Array
    low: Array
    high: Array
    grown: Array
    """The part of ``low`` that the last step of Newton's method has added; 0 if it was another."""


def settled(
    closer: Callable[[Array, Array, Array], tuple[Array, Array]], low: Array, high: Array
) -> Array:
    """The lower bound, after as many steps as each root needs: what has settled stays as it is."""

    def goes_on(turn: tuple[Array, _Root]) -> Array:
        count, now = turn
        return (count < _STEPS) & jnp.any(now.moving)

    def go(turn: tuple[Array, _Root]) -> tuple[Array, _Root]:
        count, (moving, low, high, before) = turn
        bisects = (count >= _NEWTON_STEPS) & (count < _NEWTON_STEPS + _BISECTIONS)
        new_low, new_high = closer(where(bisects, sqrt(low) * sqrt(high), low), low, high)
        grown = (new_low - low) / new_low
        # A step is to the one before as the next will be to it, or better: that is lost in
        # rounding, or it counts. NaN has settled, too.
        counts = grown * grown > eps(low) * before
        return count + 1, _Root(
            moving & (bisects | counts),
            where(moving, new_low, low),
            where(moving, new_high, high),
            where(bisects, 0.0, grown),
        )

    start = _Root(low >= 0, low, high, 0 * low)  # all of them depend on w, as shard_map asks
    return jax.lax.while_loop(goes_on, go, (jnp.asarray(0), start))[1].low
