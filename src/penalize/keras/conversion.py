"""Keras' regularizers and ours, in both directions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from keras import ops, regularizers

from penalize.backends import Array, Backend
from penalize.errors import RegularizerError
from penalize.keras.acting import behind
from penalize.regularizers import L1, L1L2, L2, Orthogonal, Regularizer


def from_keras(regularizer: Any) -> Regularizer:
    """The regularizer of penalize with the same value as one of Keras.

    ``L1``, ``L2``, ``L1L2`` and ``OrthogonalRegularizer`` have one. What Keras keeps in float32
    becomes the shortest number that it stands for: Keras' ``L1(0.1)`` gives ``L1(0.1)``.
    A regularizer of penalize comes back as it is.

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
    raise RegularizerError(
        f"from_keras got {name_of(regularizer)}, which has no counterpart in penalize",
        "those that have one are keras.regularizers.L1, L2, L1L2 and OrthogonalRegularizer",
    )


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
