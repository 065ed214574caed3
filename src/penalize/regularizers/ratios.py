"""Sparsity as a ratio of norms: what does not change when all weights are multiplied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from penalize.backends import Array, Backend
from penalize.regularizers.base import Regularizer


@dataclass(frozen=True, repr=False)
class Hoyer(Regularizer):
    """Hoyer's ratio: λ (Σ|w|)²/Σw², or with ``squared=False`` λ Σ|w|/√Σw².

    The square is 1 for one weight alone and n for n equal ones: about how many weights count.
    With a = Σ|w| and b = Σw², ``gradient`` is λ(2a/b)·(sign(w) − (a/b)·w), or
    λ(sign(w) − (a/b)·w)/√b; value and gradient of an array of zeros are 0. There is no ``prox``: no
    closed form is known.

    Args:
        strength: λ, finite and ≥ 0.
        squared: whether the ratio is squared.

    Raises:
        StrengthError: the strength is not a finite number ≥ 0.

    Source: Hoyer, Non-negative matrix factorization with sparseness constraints (2004); squared:
    Yang, Wen and Li, DeepHoyer: learning sparser neural network with differentiable scale-invariant
    sparsity measures (2020).
    """

    on_shards: ClassVar[bool] = True

    strength: float
    squared: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "squared", bool(self.squared))

    def _norms(self, w: Array, xp: Backend) -> tuple[Array, Array]:
        """Σ|w|, and Σw² with 1 for an array of zeros."""
        squares = xp.sum(w * w)
        return xp.sum(xp.abs(w)), xp.where(squares <= 0, 1.0, squares)

    def _value(self, w: Array, xp: Backend) -> Array:
        a, b = self._norms(w, xp)
        return self.strength * (a * a / b if self.squared else a / xp.sqrt(b))

    def _gradient(self, w: Array, xp: Backend) -> Array:
        a, b = self._norms(w, xp)
        slope = 2 * a / b if self.squared else 1 / xp.sqrt(b)
        return (self.strength * slope) * (xp.sign(w) - (a / b) * w)
