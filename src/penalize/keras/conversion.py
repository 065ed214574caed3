"""Keras' regularizers and ours, in both directions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from keras import constraints, ops, regularizers

from penalize.backends import Array, Backend
from penalize.errors import RegularizerError
from penalize.keras.acting import behind
from penalize.regularizers import (
    L1,
    L1L2,
    L2,
    MaxNorm,
    MinMaxNorm,
    NonNegative,
    Orthogonal,
    Regularizer,
    UnitNorm,
)


def from_keras(regularizer: Any, *, ndim: int | None = None) -> Regularizer:
    """The regularizer of penalize with the same value as one of Keras, or the same constraint.

    ``L1``, ``L2``, ``L1L2`` and ``OrthogonalRegularizer`` have one. What Keras keeps in float32
    becomes the shortest number that it stands for: Keras' ``L1(0.1)`` gives ``L1(0.1)``.
    A regularizer of penalize comes back as it is.

    Of the constraints ``NonNeg``, ``MaxNorm``, ``UnitNorm`` and ``MinMaxNorm`` have one, which acts
    in ``mode="proximal"``. Keras names the axes over which it takes a norm, and penalize those that
    are left, which tell the groups: ``MaxNorm(2.0, axis=0)`` of a matrix is
    ``MaxNorm(2.0, groups=1)``. A group of zeros, for which Keras leaves a least norm aside, goes to
    equal elements.

    Args:
        regularizer: one of Keras.
        ndim: how many axes the weight has, for a constraint with an ``axis``. By default one more
            than the last that is named, as for kernels: a matrix for ``axis=0``, the kernel of a
            two-dimensional convolution for ``axis=[0, 1, 2]``.

    Raises:
        RegularizerError: it has no counterpart, such as a function of your own.
    """
    if isinstance(regularizer, Regularizer):
        return regularizer
    kind = type(regularizer)  # a subclass may compute something else
    if kind is regularizers.L1:
        return L1(_number(regularizer.l1))
    if kind is regularizers.L2:
        return L2(_number(regularizer.l2))
    if kind is regularizers.L1L2:
        return L1L2(_number(regularizer.l1), _number(regularizer.l2))
    if kind is regularizers.OrthogonalRegularizer:
        return Orthogonal(_number(regularizer.factor), regularizer.mode)
    if kind is constraints.NonNeg:
        return NonNegative()
    if kind is constraints.MaxNorm:
        return MaxNorm(_number(regularizer.max_value), _groups(regularizer, ndim))
    if kind is constraints.UnitNorm:
        return UnitNorm(_groups(regularizer, ndim))
    if kind is constraints.MinMaxNorm:
        if regularizer.rate != 1:
            raise RegularizerError(
                f"from_keras got MinMaxNorm with rate={regularizer.rate!r}, which goes a part of "
                "the way to the constraint in each step, and has no counterpart in penalize",
                "with rate=1.0 it has",
            )
        low, high = _number(regularizer.min_value), _number(regularizer.max_value)
        return MinMaxNorm(low, high, _groups(regularizer, ndim))
    raise RegularizerError(
        f"from_keras got {name_of(regularizer)}, which has no counterpart in penalize",
        "those that have one are L1, L2, L1L2 and OrthogonalRegularizer of keras.regularizers, and "
        "NonNeg, MaxNorm, UnitNorm and MinMaxNorm of keras.constraints",
    )


def _groups(constraint: Any, ndim: int | None) -> Any:
    """The axes that index the groups of a constraint: those over which it takes no norm."""
    axes = constraint.axis if isinstance(constraint.axis, list | tuple) else [constraint.axis]
    if ndim is None:
        if not all(isinstance(axis, int) and axis >= 0 for axis in axes):
            raise RegularizerError(
                f"from_keras got {name_of(constraint)} with axis={constraint.axis!r}, which counts "
                "from the end",
                "say how many axes the weight has: from_keras(constraint, ndim=2)",
            )
        ndim = max(axes) + 2
    left = [axis for axis in range(ndim) if axis not in {a % ndim for a in axes}]
    return left[0] if len(left) == 1 else tuple(left)


def to_keras(regularizer: Regularizer) -> Any:
    """Keras' own regularizer with the same value, for models that must load without penalize.

    Raises:
        RegularizerError: Keras has none like it.
    """
    if isinstance(regularizer, Regularizer) and not regularizer.scheduled:
        if isinstance(regularizer, Orthogonal):
            return regularizers.OrthogonalRegularizer(regularizer.strength, regularizer.mode)
        l1, l2, rest = regularizer.split()
        if not rest and not isinstance(regularizer, L1 | L2):
            return regularizers.L1L2(l1, l2)
        if not rest:
            kind = regularizers.L1 if isinstance(regularizer, L1) else regularizers.L2
            return kind(l1 + l2)
    raise RegularizerError(
        f"to_keras got {regularizer!r}, and Keras has no regularizer like it",
        "pass it to Keras as it is: every regularizer of penalize is accepted by "
        "kernel_regularizer= and saved with the model",
    )


def _number(value: Any) -> float:
    """The number that was meant: 0.1, not the 0.10000000149 that float32 makes of it."""
    if isinstance(value, float | int):
        return float(value)
    return float(str(ops.convert_to_numpy(value)[()]))


def name_of(function: Any) -> str:
    """What a callable is called, for tables and messages."""
    return str(getattr(function, "__name__", None) or type(function).__name__)


@dataclass(frozen=True, repr=False, eq=False)
class KerasRegularizer(Regularizer):
    """Any callable that stands on a Keras variable as its regularizer, so that a plan can show it.

    It has a value and nothing else: its gradient is Keras' to compute, and its prox is not known.
    """

    strengths: ClassVar[tuple[str, ...]] = ()

    function: Callable[[Any], Any]

    def _value(self, w: Array, xp: Backend) -> Array:
        return self.function(w)

    def _gradient(self, w: Array, xp: Backend) -> Array:
        raise RegularizerError(
            f"the gradient of {self!r} is not known here", "differentiate its value instead"
        )

    def __mul__(self, factor: object) -> Any:
        return NotImplemented

    __rmul__ = __mul__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KerasRegularizer) and other.function is self.function

    def __hash__(self) -> int:
        return id(self.function)

    def __repr__(self) -> str:
        return name_of(self.function)


def shown(regularizer: Any) -> Regularizer | None:
    """A variable's regularizer as one of ours: the equal one, or one that wraps the callable.

    None where nothing is declared on it: what a plan puts there itself is looked through.
    """
    regularizer = behind(regularizer)
    if regularizer is None:
        return None
    try:
        return from_keras(regularizer)
    except RegularizerError:
        return KerasRegularizer(regularizer)
