"""The few array functions that the mathematics needs, one module per framework.

A backend is a module that satisfies :class:`Backend`, or for sharded arrays an object that does. It
is found by the type of an array and imported only then, so ``import penalize`` imports no
framework. Arithmetic and comparison operators are the arrays' own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from penalize.errors import ArrayError

Array = Any
"""An array of any framework."""


class Fixed(Protocol):
    """Values that belong to a regularizer, such as an anchor."""

    def numpy(self) -> Array:
        """The values, as a NumPy array."""

    @property
    def held(self) -> dict[Any, Array]:
        """A place where a framework may keep the values in its own arrays."""


class Backend(Protocol):
    """What the mathematics asks of a framework.

    An array may be one rank's shard of a larger one. Then ``sum`` and ``segment_sum`` are over the
    whole, ``shape`` is that of the whole, and everything else works on the elements that are here.
    """

    @property
    def framework(self) -> str:
        """The root package of its arrays' types."""

    def shape(self, w: Array) -> tuple[int, ...]:
        """The shape of the weight as a whole."""

    def wide(self, w: Array) -> Array:
        """w in float32 or wider. Raises :class:`~penalize.errors.ArrayError` if not floating."""

    def like(self, x: Array, w: Array) -> Array:
        """x in the dtype of w."""

    def constant(self, values: Sequence[float], x: Array) -> Array:
        """A one-dimensional array of x's dtype and device."""

    def full(self, shape: Sequence[int], value: float, x: Array) -> Array:
        """An array of x's dtype and device that holds one number."""

    def eye(self, size: int, x: Array) -> Array:
        """The identity matrix in x's dtype, on its device."""

    def fixed(self, values: Fixed, w: Array) -> Array:
        """Values of the weight's shape beside w: on its device, in float32 or wider, its shard."""

    def numpy(self, w: Array) -> Array:
        """A copy of w in NumPy, in float32 or wider."""

    def real(self, x: Array) -> Array:
        """An integer array without axes in a floating-point type."""

    def eps(self, w: Array) -> float:
        """The distance from 1 to the next number of w's dtype."""

    def tiny(self, w: Array) -> float:
        """The smallest number > 0 of w's dtype that has all its digits."""

    def abs(self, x: Array) -> Array:
        """|x|, with derivative 0 at 0."""

    def sign(self, x: Array) -> Array:
        """−1, 0 or 1."""

    def sqrt(self, x: Array) -> Array:
        """√x."""

    def log1p(self, x: Array) -> Array:
        """log(1 + x)."""

    def cos(self, x: Array) -> Array:
        """cos x."""

    def clip(self, x: Array, low: Array, high: Array) -> Array:
        """x limited to [low, high]; both bounds are numbers or both are arrays."""

    def maximum(self, x: Array, y: Array) -> Array:
        """The larger of both, element by element; NaN where one is."""

    def where(self, condition: Array, a: Array, b: Array) -> Array:
        """a where the condition holds, else b; a and b are numbers or arrays, not both numbers."""

    def sum(self, x: Array, axes: Sequence[int] | None = None) -> Array:
        """Over all axes of the weight, to a scalar; or over some, which are kept with size one.

        Along the axes that are summed over, x is as long as the weight.
        """

    def segment_sum(self, x: Array, ids: Sequence[int], count: int) -> Array:
        """Sums of a flat x by segment number; one id for each flat index of the weight."""

    def take(self, x: Array, ids: Sequence[int]) -> Array:
        """Elements of what ``segment_sum`` gave; one id for each flat index of the weight."""

    def pick(self, x: Array, ids: Sequence[int]) -> Array:
        """Elements of a flat array, by their numbers."""

    def total(self, x: Array) -> Array:
        """Over all of what ``segment_sum`` gave, to a scalar."""

    def reshape(self, x: Array, shape: Sequence[int]) -> Array:
        """x in another shape, row-major."""

    def broadcast(self, x: Array, shape: Sequence[int]) -> Array:
        """x repeated along its axes of size one."""

    def concat(self, parts: Sequence[Array], axis: int) -> Array:
        """Arrays one behind the other."""

    def max(self, x: Array) -> Array:
        """The largest along the last axis, which is kept with size one."""

    def descending(self, x: Array) -> Array:
        """The order along the last axis, from the largest to the smallest, for :meth:`along`."""

    def along(self, x: Array, order: Array) -> Array:
        """x in an order along its last axis."""

    def cumsum(self, x: Array) -> Array:
        """Sums from the first to each along the last axis."""

    def svd(self, x: Array) -> tuple[Array, Array, Array]:
        """U, the singular values from the largest on, and Vᵀ of a matrix, reduced."""

    def stop(self, x: Array) -> Array:
        """x, as a constant to differentiation."""

    def gradient(self, f: Callable[[Array], Array], w: Array) -> Array:
        """The gradient of a scalar function by the framework's own differentiation."""

    def host(self, f: Callable[..., Array], back: Callable[..., Array], *arrays: Array) -> Array:
        """What a function of NumPy arrays gives, of the shape and dtype that they all have.

        For exact algorithms that go from element to element. It is differentiated once, backwards.

        Args:
            f: the function, one of a module of penalize. It treats all but the last axis alike.
            back: another, of the gradient by f's result and the same arrays: the gradients by each
                of them, stacked.
            arrays: what f takes.
        """

    def shares(self, w: Array) -> Sequence[tuple[int, Array]]:
        """The arrays, each with its sign, whose penalties make up the penalty of w.

        (+1, w) alone, but for a shard of a variable that is partitioned: what the shards stand for
        together is the whole. The first sign is +1.
        """

    def transpose(self, x: Array, axes: Sequence[int] | None = None) -> Array:
        """x with its axes in another order; by default those of a matrix exchanged."""


def guarded(value: Array, w: Array, xp: Backend, check: Callable[[], None]) -> Array:
    """The value, of which no derivative is taken before ``check`` was called, and let it pass.

    Of TensorFlow alone, whose own functions put a value into a loss: elsewhere it is one of ours,
    which calls the check itself.
    """
    own = getattr(xp, "guarded", None)
    return value if own is None else own(value, w, check)


def undisturbed(
    compute: Callable[[Array], Array], w: Array, xp: Backend, *, differentiated: bool
) -> Array:
    """What a function gives for w, where no setting of the user's loop narrows its arithmetic.

    Of PyTorch alone, which has its autocast; of the others none has such a setting.

    Args:
        compute: the function.
        w: its argument.
        xp: the array functions.
        differentiated: whether to see to its derivatives as well: they may have matrix products.
    """
    own = getattr(xp, "undisturbed", None)
    return compute(w) if own is None else own(compute, w, differentiated)


def repeated(step: Callable[[Array], Array], x: Array, count: int, xp: Backend) -> Array:
    """step(step(… x)), ``count`` times: as a loop, where there is one that can be differentiated.

    JAX's backend has one: there a program that is written out takes seconds to compile.
    """
    own = getattr(xp, "repeated", None)
    if own is not None:
        found: Array = own(step, x, count)
        return found
    for _ in range(count):
        x = step(x)
    return x


def implicit(value: Array, f: Callable[..., Array], arrays: Sequence[Array], xp: Backend) -> Array:
    """The value, a constant, with the derivative that f has at the arrays.

    JAX's backend computes f where a derivative is asked for, and not before.
    """
    own = getattr(xp, "implicit", None)
    if own is not None:
        found: Array = own(value, f, arrays)
        return found
    change = f(*arrays)
    return value + (change - xp.stop(change))


def is_cut(xp: Backend) -> bool:
    """Whether arrays are shards, of which sums have to be asked for."""
    return bool(getattr(xp, "is_cut", False))


def is_traced(xp: Backend) -> bool:
    """Whether the arithmetic is being compiled, by a compiler that follows no look at the stack."""
    own = getattr(xp, "is_traced", None)
    return own is not None and bool(own())


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

Opener = Callable[[Array, bool], tuple[Array, Backend]]
"""(array, whether the whole is needed where it is sharded) → what is inside, and its backend."""


def _as_it_is(load: Callable[[], Backend]) -> Callable[[], Opener]:
    def find() -> Opener:
        backend = load()
        return lambda array, _: (array, backend)

    return find


def _keras() -> Opener:
    from penalize.backends import keras

    return keras.open


def _dtensor() -> Opener:
    from penalize.backends import dtensor

    return dtensor.open


_OPENERS: dict[str, Callable[[], Opener]] = {
    **{package: _as_it_is(load) for package, load in _BACKENDS.items()},
    "keras": _keras,
    "torch.distributed.tensor": _dtensor,
}
"""Package of an array's type → how what opens it is imported. The innermost package decides."""

_found: dict[type, Opener] = {}


def open_array(array: Array, *, whole: bool = False) -> tuple[Array, Backend]:
    """An array and the backend of its framework, looked up by type.

    A Keras variable is opened: what comes back is the array that it holds. A sharded array is: what
    comes back is the local shard, and a backend that knows where it lies.

    Args:
        array: an array of any framework.
        whole: whether to gather an array that is sharded. Every rank then computes on all of it.

    Raises:
        ArrayError: the type belongs to no known framework.
    """
    kind = type(array)
    opener = _found.get(kind)
    if opener is None:
        opener = _found[kind] = _find(kind)
    return opener(array, whole)


def _loader(kind: type) -> Callable[[], Opener] | None:
    parts = kind.__module__.split(".")
    packages = (".".join(parts[:depth]) for depth in range(len(parts), 0, -1))
    return next((_OPENERS[package] for package in packages if package in _OPENERS), None)


def _find(kind: type) -> Opener:
    loader = _loader(kind)
    if loader is None:  # a subclass; torch.compile cannot trace this loop, and seldom has to
        loader = next(filter(None, map(_loader, kind.__mro__)), None)
    if loader is not None:
        return loader()
    raise ArrayError(
        f"a {kind.__module__}.{kind.__qualname__}",
        f"a floating-point array of one of: {', '.join(_BACKENDS)}",
    )
