"""Penalties that flatten out: concave in |w|, so that large weights are hardly shrunk.

Their proximal operators are exact for every step: where the step is so long that the objective is
no longer convex, they jump from 0 (or from a smaller weight) to a larger one, at the tie of the
two. Thresholds are closed forms, and not comparisons of objectives, which rounding blurs at a tie.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from penalize.backends import Array, Backend, guarded
from penalize.regularizers.base import Elementwise, Regularizer, check_above
from penalize.regularizers.elementwise import L1, soft_threshold
from penalize.regularizers.kinks import Kinks


def _functions_of(s: float | Array, xp: Backend) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """``where`` and ``sqrt`` for what depends on a step, which is a number or an array."""
    if isinstance(s, numbers.Real):
        return (lambda condition, a, b: a if condition else b), math.sqrt
    return xp.where, xp.sqrt


class _Even:
    """What follows from the penalty of one weight, as a function of its size."""

    def _each(self, size: Array, xp: Backend) -> Array:
        raise NotImplementedError

    def _value(self, w: Array, xp: Backend) -> Array:
        return xp.sum(self._each(xp.abs(w), xp))

    def _pull(self, w: Array, xp: Backend) -> Array:
        size = xp.abs(w)
        return self._each(size, xp) / xp.where(size <= 0, 1.0, size)


class _Flattening(_Even):
    """Where it is concave in the size, with a slope that is finite at 0."""

    flattens_out: ClassVar[bool] = True

    def _slope(self, size: Array, xp: Backend) -> Array:
        raise NotImplementedError

    def _gradient(self, w: Array, xp: Backend) -> Array:
        return xp.sign(w) * self._slope(xp.abs(w), xp)

    def _tangent(self, w: Array, xp: Backend) -> Regularizer:
        return L1(0.0)._with(strength=self._slope(xp.abs(w), xp))


@dataclass(frozen=True, repr=False)
class L0(_Even, Elementwise):
    """The number of weights that are not 0, times λ.

    There is no ``gradient``: it is refused. ``prox`` is the hard threshold: it keeps w where
    w² > 2·step·λ, and is 0 elsewhere.

    Args:
        strength: λ, finite and ≥ 0.

    Raises:
        StrengthError: the strength is not a finite number ≥ 0.

    Source: Blumensath and Davies, Iterative thresholding for sparse approximations (2008).
    """

    on_shards: ClassVar[bool] = True
    differentiable: ClassVar[bool] = False
    weak_convexity: ClassVar[float | None] = math.inf
    no_kinks = 'it jumps at 0. Use mode="proximal"'

    strength: float

    def _each(self, size: Array, xp: Backend) -> Array:
        return self.strength * xp.where(size > 0, 1.0, size)

    def _value(self, w: Array, xp: Backend) -> Array:
        return guarded(super()._value(w, xp), w, xp, self.check_gradient)

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        s = step * self.strength
        _, sqrt = _functions_of(s, xp)
        return xp.where(xp.abs(w) <= sqrt(2 * s), 0.0, w)


@dataclass(frozen=True, repr=False)
class MCP(_Flattening, Elementwise):
    """The minimax concave penalty: factor·Σ ρ(w), ρ = λ|w| − w²/(2γ) for |w| ≤ γλ, ½γλ² beyond.

    ``gradient`` is factor·sign(w)·(λ − |w|/γ) for |w| ≤ γλ, 0 at 0 and beyond. With
    s = step·factor, ``prox`` is

    - for s < γ the firm threshold: 0 for |w| ≤ sλ, sign(w)·(|w| − sλ)/(1 − s/γ) for |w| ≤ γλ, w
      beyond;
    - for s ≥ γ the hard threshold: 0 for |w| ≤ λ√(γs), w beyond.

    Args:
        strength: λ, finite and ≥ 0. It is the slope at 0, and with γ it says where the penalty is
            flat: a multiple of the penalty is one of ``factor``.
        gamma: γ, finite and > 0; from it to infinity MCP goes from counting to the lasso.
        factor: finite and ≥ 0.

    Raises:
        StrengthError: the strength or the factor is not a finite number ≥ 0.
        RegularizerError: gamma is not a finite number > 0.

    Source: Zhang, Nearly unbiased variable selection under minimax concave penalty (2010).
    """

    on_shards: ClassVar[bool] = True
    strengths: ClassVar[tuple[str, ...]] = ("strength", "factor")
    factors: ClassVar[tuple[str, ...] | None] = ("factor",)

    strength: float
    gamma: float = 3.0
    factor: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "gamma", check_above(self, "gamma", self.gamma, 0.0))

    @property
    def weak_convexity(self) -> float | None:  # type: ignore[override]
        """factor/γ."""
        return self.factor / self.gamma

    def _each(self, size: Array, xp: Backend) -> Array:
        inner = xp.clip(size, 0.0, self.gamma * self.strength)
        return self.factor * (inner * (self.strength - inner / (2 * self.gamma)))

    def kinks(self) -> Kinks:
        return Kinks(self.factor * self.strength)

    def _slope(self, size: Array, xp: Backend) -> Array:
        return self.factor * xp.clip(self.strength - size / self.gamma, 0.0, self.strength)

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        s, gamma, flat = step * self.factor, self.gamma, self.gamma * self.strength
        where, sqrt = _functions_of(s, xp)
        firm = s < gamma
        size = xp.abs(w)
        # For s ≥ γ it shrinks to 0 all that is not flat.
        shrunk = soft_threshold(xp.clip(w, -flat, flat), s * self.strength, xp)
        grown = xp.clip(shrunk * (gamma / where(firm, gamma - s, gamma)), -size, size)
        cut = where(firm, flat, self.strength * sqrt(gamma * s))
        return xp.where(size <= cut, grown, w)


@dataclass(frozen=True, repr=False)
class SCAD(_Flattening, Elementwise):
    """The smoothly clipped absolute deviation: factor·Σ ρ(w).

    ρ is λ|w| for |w| ≤ λ, (2γλ|w| − w² − λ²)/(2(γ − 1)) for |w| ≤ γλ, and ½(γ + 1)λ² beyond.
    ``gradient`` is factor·sign(w) times λ, then (γλ − |w|)/(γ − 1), then 0; it is 0 at 0. With
    s = step·factor, ``prox`` is

    - for s < γ − 1: the soft threshold sign(w)·max(|w| − sλ, 0) for |w| ≤ λ(1 + s),
      ((γ − 1)w − sign(w)·sγλ)/(γ − 1 − s) for |w| ≤ γλ, w beyond;
    - for s ≤ γ + 1: the soft threshold for |w| ≤ ½λ(γ + 1 + s), w beyond;
    - for larger s: 0 for |w| ≤ λ√(s(γ + 1)), w beyond.

    Args:
        strength: λ, finite and ≥ 0. It is the slope at 0, and with γ it says where the penalty is
            flat: a multiple of the penalty is one of ``factor``.
        gamma: γ, finite and > 2, the authors' a.
        factor: finite and ≥ 0.

    Raises:
        StrengthError: the strength or the factor is not a finite number ≥ 0.
        RegularizerError: gamma is not a finite number > 2.

    Source: Fan and Li, Variable selection via nonconcave penalized likelihood and its oracle
    properties (2001).
    """

    on_shards: ClassVar[bool] = True
    strengths: ClassVar[tuple[str, ...]] = ("strength", "factor")
    factors: ClassVar[tuple[str, ...] | None] = ("factor",)

    strength: float
    gamma: float = 3.7
    factor: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "gamma", check_above(self, "gamma", self.gamma, 2.0))

    @property
    def weak_convexity(self) -> float | None:  # type: ignore[override]
        """factor/(γ − 1)."""
        return self.factor / (self.gamma - 1)

    def _each(self, size: Array, xp: Backend) -> Array:
        slope, flat = self.strength, self.gamma * self.strength
        inner = xp.clip(size, 0.0, flat)
        bent = xp.clip(size, slope, flat) - slope
        return self.factor * (slope * inner - bent * bent / (2 * (self.gamma - 1)))

    def kinks(self) -> Kinks:
        return Kinks(self.factor * self.strength)

    def _slope(self, size: Array, xp: Backend) -> Array:
        left = self.gamma * self.strength - size
        return self.factor * xp.clip(left / (self.gamma - 1), 0.0, self.strength)

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        s, gamma, slope = step * self.factor, self.gamma, self.strength
        where, sqrt = _functions_of(s, xp)
        convex = s < gamma - 1
        size, most = xp.abs(w), s * slope
        # Shrunk by s times the slope at the result: λ, or less where the penalty bends, or 0.
        left = xp.clip(gamma * slope - size, 0.0, gamma * slope)
        bent = (s / where(convex, gamma - 1 - s, 1.0)) * left
        bent = xp.where(bent > most, most, bent)
        cut = slope * where(s <= gamma + 1, 0.5 * (gamma + 1 + s), sqrt(s * (gamma + 1)))
        jump = xp.where(size <= cut, most, 0.0 * left)
        return soft_threshold(w, where(convex, bent, jump), xp)


@dataclass(frozen=True, repr=False)
class LogSum(_Flattening, Elementwise):
    """The logarithmic penalty: λ Σ log(1 + |w|/ε). Reweighted ℓ₁ minimises it step by step.

    ``gradient`` is λ·sign(w)/(|w| + ε), 0 at 0. ``prox`` is, with s = step·λ, either 0 or
    sign(w)·½(|w| − ε + √((|w| + ε)² − 4s)): this where |w| > s/ε, and for s > ε² also where it is
    real and has the lower objective.

    Args:
        strength: λ, finite and ≥ 0.
        epsilon: ε, finite and > 0. Weights well below it are pulled as by ``L1(λ/ε)``, those well
            above hardly at all: choose it somewhat smaller than a weight that counts.

    Raises:
        StrengthError: the strength is not a finite number ≥ 0.
        RegularizerError: epsilon is not a finite number > 0.

    Source: Candès, Wakin and Boyd, Enhancing sparsity by reweighted ℓ₁ minimization (2008), for the
    penalty; Gong et al., A general iterative shrinkage and thresholding algorithm for non-convex
    regularized optimization problems (2013), for its prox.
    """

    on_shards: ClassVar[bool] = True

    strength: float
    epsilon: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "epsilon", check_above(self, "epsilon", self.epsilon, 0.0))

    @property
    def weak_convexity(self) -> float | None:  # type: ignore[override]
        """λ/ε²."""
        return self.strength / self.epsilon**2

    def _each(self, size: Array, xp: Backend) -> Array:
        return self.strength * xp.log1p(size / self.epsilon)

    def kinks(self) -> Kinks:
        return Kinks(self.strength / self.epsilon)

    def _slope(self, size: Array, xp: Backend) -> Array:
        return self.strength / (size + self.epsilon)

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        s, epsilon = step * self.strength, self.epsilon
        where, sqrt = _functions_of(s, xp)
        size, narrow = xp.abs(w), 2 * sqrt(s)
        far = size > s / epsilon
        # √((|w| + ε)² − 4s), so that nothing overflows; below 0 there is no stationary point.
        below = size + epsilon - narrow
        none = below <= 0
        root = xp.sqrt(xp.where(none, 1.0, below)) * xp.sqrt(size + epsilon + narrow)
        root = xp.where(none, 0.0, root)
        # The larger u with (|w| − u)(u + ε) = s is |w| minus this, which is 0 for s = 0.
        drop = 2 * s / (size + epsilon + root)
        drop = xp.where(drop > size, size, drop)
        # (objective at u − objective at 0)/u, with |w| put in from the equation.
        u = xp.where(far | (drop >= size), 1.0, size - drop)
        gain = s * (xp.log1p(u / epsilon) / u - 1 / (u + epsilon)) - u / 2
        jumped = xp.where((below < 0) | (gain >= 0), size, drop)
        low = where(s <= epsilon**2, size, jumped)
        taken = xp.where(far, drop, low)
        none = where(s > 0, 0.0 * w, w)
        return xp.where(taken >= size, none, w - xp.sign(w) * taken)
