"""The few array functions that the mathematics needs, one module per framework.

A backend is a module that satisfies :class:`Backend`. It is found by the type of an array and
imported only then, so ``import penalize`` imports no framework. Arithmetic and comparison
operators are the arrays' own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from penalize.errors import ArrayError

Array = Any
"""An array of any framework."""


class Backend(Protocol):
    """What the mathematics asks of a framework."""

    def wide(self, w: Array) -> Array:
        """w in float32 or wider. Raises :class:`~penalize.errors.ArrayError` if not floating."""

    def like(self, x: Array, w: Array) -> Array:
        """x in the dtype of w."""

    def constant(self, values: Sequence[float], x: Array) -> Array:
        """A one-dimensional array of x's dtype and device."""

    def abs(self, x: Array) -> Array:
        """|x|, with derivative 0 at 0."""

    def sign(self, x: Array) -> Array:
        """−1, 0 or 1."""

    def sqrt(self, x: Array) -> Array:
        """√x."""

    def clip(self, x: Array, low: Array, high: Array) -> Array:
        """x limited to [low, high]; both bounds are numbers or both are arrays."""

    def where(self, condition: Array, a: Array, b: Array) -> Array:
        """a where the condition holds, else b; a and b are numbers or arrays, not both numbers."""

    def sum(self, x: Array, axes: Sequence[int] | None = None) -> Array:
        """Over all axes, to a scalar; or over some, which are kept with size one."""

    def segment_sum(self, x: Array, ids: Sequence[int], count: int) -> Array:
        """Sums of a flat x by segment number."""

    def take(self, x: Array, ids: Sequence[int]) -> Array:
        """Elements of a flat x."""

    def reshape(self, x: Array, shape: Sequence[int]) -> Array:
        """x in another shape, row-major."""

    def shares(self, w: Array) -> Sequence[tuple[int, Array]]:
        """The arrays, each with its sign, whose penalties make up the penalty of w.

        (+1, w) alone, but for a shard of a variable that is partitioned: what the shards stand for
        together is the whole. The first sign is +1.
        """

    def transpose(self, x: Array) -> Array:
        """A matrix, its axes exchanged."""


def _numpy() -> Backend:
    from penalize.backends import numpy

    return numpy


def _torch() -> Backend:
    from penalize.backends import torch

    return torch


def _jax() -> Backend:
    from penalize.backends import jax

    return jax


def _tensorflow() -> Backend:
    from penalize.backends import tensorflow

    return tensorflow


_BACKENDS: dict[str, Callable[[], Backend]] = {
    "numpy": _numpy,
    "torch": _torch,
    "jax": _jax,
    "jaxlib": _jax,
    "tensorflow": _tensorflow,
}
"""Root package of an array's type → how its backend is imported."""

_found: dict[type, Backend] = {}


def open_array(array: Array) -> tuple[Array, Backend]:
    """An array and the backend of its framework, looked up by type.

    A Keras variable is opened: what comes back is the array that it holds.

    Raises:
        ArrayError: the type belongs to no known framework.
    """
    kind = type(array)
    backend = _found.get(kind)
    if backend is None:
        if kind.__module__.partition(".")[0] == "keras":
            return open_array(array.value)
        backend = _found[kind] = _find(kind)
    return array, backend


def _loader(kind: type) -> Callable[[], Backend] | None:
    return _BACKENDS.get(kind.__module__.partition(".")[0])


def _find(kind: type) -> Backend:
    loader = _loader(kind)
    if loader is None:  # a subclass; torch.compile cannot trace this loop, and seldom has to
        loader = next(filter(None, map(_loader, kind.__mro__)), None)
    if loader is not None:
        return loader()
    raise ArrayError(
        f"a {kind.__module__}.{kind.__qualname__}",
        f"a floating-point array of one of: {', '.join(_BACKENDS)}",
    )
