"""JAX: arrays, and tracers under its transformations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from penalize.errors import ArrayError

framework = "jax"
sign = jnp.sign
sqrt = jnp.sqrt
clip = jnp.clip
where = jnp.where
reshape = jnp.reshape
transpose = jnp.transpose
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


def _index(ids: Sequence[int]) -> Any:
    return jnp.asarray(ids, dtype=jnp.int32)
