"""Ratios of norms: sparse at any scale of the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from penalize.backends import Array, Backend
from penalize.regularizers.base import Regularizer


@dataclass(frozen=True, repr=False)
class Hoyer(Regularizer):
    """The ratio of two norms: λ(Σ|w|)²/Σw², or λ Σ|w|/√Σw².

    It goes from λ for a single weight to λn, or λ√n, for n of one size.

    It does not change when all weights are scaled: it moves weight among them, and shrinks none.
    An array of zeros has the penalty 0. ``gradient`` is λ(2S/Q)(sign(w) − (S/Q)w), where S = Σ|w|
    and Q = Σw², or λ(sign(w) − (S/Q)w)/√Q; 0 for a weight that is 0. There is no ``prox``: no
    closed form is known.

    Args:
        strength: λ, finite and ≥ 0.
        squared: whether it is the square of the ratio.

    Raises:
        StrengthError: the strength is not a finite number ≥ 0.

    Source: Hoyer, Non-negative matrix factorization with sparseness constraints (2004); squared:
    Yang, Wen and Li, DeepHoyer: learning sparser neural network with differentiable scale-invariant
    sparsity measures (2020).
    """

    on_shards: ClassVar[bool] = True
    no_kinks = 'the size of its kink depends on all other weights. Use mode="gradient"'

    strength: float
    squared: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "squared", bool(self.squared))

    def _at_scale(self, w: Array, xp: Backend) -> tuple[Array, Array, Array, Array]:
        """w/S, S, Q/S², and whether all is 0; the numbers are then 1.

        At this scale nothing overflows or vanishes. S is a constant to differentiation, as Ω is the
        same at any: each rank of a sharded array differentiates through sums over its own elements.
        """
        total = xp.stop(xp.sum(xp.abs(w)))
        zero = total <= 0
        total = xp.where(zero, 1.0, total)
        unit = w / total
        return unit, total, xp.where(zero, 1.0, xp.sum(unit * unit)), zero

    def _value(self, w: Array, xp: Backend) -> Array:
        unit, _, squares, zero = self._at_scale(w, xp)
        total = xp.sum(xp.abs(unit))  # 1, with a derivative
        ratio = total * total / squares if self.squared else total / xp.sqrt(squares)
        return self.strength * xp.where(zero, 0.0, ratio)

    def _gradient(self, w: Array, xp: Backend) -> Array:
        unit, total, squares, _ = self._at_scale(w, xp)
        factor = 2 / squares if self.squared else 1 / xp.sqrt(squares)
        return (self.strength * factor / total) * (xp.sign(w) - unit / squares)
