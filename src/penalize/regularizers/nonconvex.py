"""Sums over elements that are concave in |w|: they shrink small weights and leave large ones alone.

The proximal operators are exact for every step: a minimum over all u, found by its closed form.
Below the limit that ``weak_convexity`` gives they are continuous. Beyond it the objective has
several minima, and they jump where the lowest changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from penalize.backends import Array, Backend
from penalize.regularizers.base import Elementwise, check_above
from penalize.regularizers.elementwise import soft_threshold


class Concave(Elementwise):
    """A sum over elements, concave in |w|."""

    def _each(self, size: Array, xp: Backend) -> Array:
        """Ω of each element, by its size."""
        raise NotImplementedError

    def _value(self, w: Array, xp: Backend) -> Array:
        return xp.sum(self._each(xp.abs(w), xp))

    def _pull(self, w: Array, xp: Backend) -> Array:
        # Where Ω is flat it has no gradient, and so may the data have none: the mean slope on the
        # way to 0 is what a step has to be compared with.
        size = xp.abs(w)
        zero = size <= 0
        return xp.where(zero, 0.0, self._each(size, xp) / xp.where(zero, 1.0, size))


@dataclass(frozen=True, repr=False)
class L0(Concave):
    """λ times the number of weights that are not zero.

    ``prox`` is hard thresholding: w where w² > 2·step·λ, else 0. There is no ``gradient``: the
    count is constant wherever it does not jump, so only ``mode="proximal"`` can act.

    Args:
        strength: λ, finite and ≥ 0.

    Raises:
        StrengthError: the strength is not a finite number ≥ 0.
        NoGradientError: when a gradient is asked for.

    Source: Blumensath and Davies, Iterative thresholding for sparse approximations (2008).
    """

    on_shards: ClassVar[bool] = True
    weak_convexity: ClassVar[float | None] = math.inf
    differentiable: ClassVar[bool] = False

    strength: float

    def _each(self, size: Array, xp: Backend) -> Array:
        return self.strength * xp.where(size > 0, 1.0, size)

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        return keep_above(w, w * w, 2 * step * self.strength, xp)


@dataclass(frozen=True, repr=False)
class MCP(Concave):
    """The minimax concave penalty: factor · Σ (λ|w| − w²/2γ where |w| ≤ γλ, else γλ²/2).

    It begins as λ‖w‖₁ and is flat beyond γλ: large weights are not shrunk. ``gradient`` is
    factor · sign(w)·max(λ − |w|/γ, 0). ``prox``, with s = step·factor, is firm thresholding where
    s < γ: 0 up to sλ, sign(w)·(|w| − sλ)/(1 − s/γ) up to γλ, then w; and for larger s hard
    thresholding at λ√(γs).

    Args:
        strength: λ, finite and ≥ 0: the slope at 0.
        gamma: γ > 1: how far it bends. The limit of large γ is L1.
        factor: multiplies all of it; ``2 * r`` and schedules do so.

    Raises:
        StrengthError: the strength or factor is not a finite number ≥ 0.
        RegularizerError: γ is not a finite number > 1.

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
        object.__setattr__(self, "gamma", check_above(self, "gamma", self.gamma, 1.0))

    @property
    def weak_convexity(self) -> float:  # type: ignore[override]
        """See :attr:`Regularizer.weak_convexity`."""
        return self.factor / self.gamma

    def _each(self, size: Array, xp: Backend) -> Array:
        return self.factor * mcp(size, self.strength, self.gamma, xp)

    def _gradient(self, w: Array, xp: Backend) -> Array:
        knee = self.gamma * self.strength
        inside = xp.clip(w, -knee, knee)
        return self.factor * (self.strength * xp.sign(w) - inside / self.gamma)

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        return mcp_prox(w, step * self.factor, self.strength, self.gamma, xp)


def mcp(size: Array, strength: Array, gamma: float, xp: Backend) -> Array:
    """λt − t²/2γ where t ≤ γλ, else γλ²/2."""
    knee = gamma * strength
    inside = size - xp.clip(size - knee, 0.0 * size, size)
    return inside * (strength - inside / (2 * gamma))


def mcp_prox(w: Array, s: float | Array, strength: Array, gamma: float, xp: Backend) -> Array:
    """argmin_u ½(u − w)² + s·MCP(u) for each element; strength and s are numbers or arrays."""
    size = xp.abs(w)
    s = s + 0.0 * size
    bent = s < gamma
    slope = 1 - xp.where(bent, s, 0.0) / gamma
    firm = xp.where(size > gamma * strength, w, soft_threshold(w, s * strength, xp) / slope)
    return xp.where(bent, firm, keep_above(w, size, strength * xp.sqrt(gamma * s), xp))


@dataclass(frozen=True, repr=False)
class SCAD(Concave):
    """Smoothly clipped absolute deviation: factor · Σ of λ|w| where |w| ≤ λ; of
    (2γλ|w| − w² − λ²)/(2(γ − 1)) up to γλ; then of λ²(γ + 1)/2.

    ``gradient`` is factor · sign(w)·min(λ, max(γλ − |w|, 0)/(γ − 1)). ``prox``, with
    s = step·factor, is the three-piece threshold of Fan and Li where s < γ − 1; soft thresholding
    up to λ(γ + 1 + s)/2, then w, where s ≤ γ + 1; hard thresholding at λ√(s(γ + 1)) beyond.

    Args:
        strength: λ, finite and ≥ 0: the slope at 0.
        gamma: γ > 2, which Fan and Li call a.
        factor: multiplies all of it; ``2 * r`` and schedules do so.

    Raises:
        StrengthError: the strength or factor is not a finite number ≥ 0.
        RegularizerError: γ is not a finite number > 2.

    Source: Fan and Li, Variable selection via nonconcave penalized likelihood (2001).
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
    def weak_convexity(self) -> float:  # type: ignore[override]
        """See :attr:`Regularizer.weak_convexity`."""
        return self.factor / (self.gamma - 1)

    def _each(self, size: Array, xp: Backend) -> Array:
        # λ·|w| less the integral of how far the slope has fallen behind λ.
        past = xp.clip(size - self.strength, 0.0, (self.gamma - 1) * self.strength)
        beyond = size - self.strength - past
        flat = xp.where(beyond > 0, beyond, 0.0)
        bend = past * past / (2 * (self.gamma - 1))
        return self.factor * (self.strength * (size - flat) - bend)

    def _gradient(self, w: Array, xp: Backend) -> Array:
        knee, reach = self.strength, (self.gamma - 1) * self.strength
        fallen = xp.clip(xp.abs(w) - knee, 0.0, reach) / (self.gamma - 1)
        return self.factor * xp.sign(w) * (knee - fallen)

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        knee, gamma = self.strength, self.gamma
        size = xp.abs(w)
        s = step * self.factor + 0.0 * size
        bent = s < gamma - 1
        soft = soft_threshold(w, s * knee, xp)
        middle = (w - xp.sign(w) * s * gamma * knee / (gamma - 1)) / (
            1 - xp.where(bent, s, 0.0) / (gamma - 1)
        )
        three = xp.where(size <= knee * (1 + s), soft, xp.where(size <= gamma * knee, middle, w))
        two = xp.where(size <= knee * (gamma + 1 + s) / 2, soft, w)
        hard = keep_above(w, size, knee * xp.sqrt(s * (gamma + 1)), xp)
        return xp.where(bent, three, xp.where(s <= gamma + 1, two, hard))


@dataclass(frozen=True, repr=False)
class LogSum(Concave):
    """The log-sum penalty: λ Σ log(1 + |w|/ε), which reweighted ℓ₁ minimisation minimises.

    ``gradient`` is λ·sign(w)/(ε + |w|), 0 at 0. ``prox`` is 0, or sign(w) times the larger root of
    u² + (ε − |w|)u + step·λ − ε|w| = 0 where that is lower.

    Args:
        strength: λ, finite and ≥ 0.
        epsilon: ε > 0: below it, a weight is penalized about as by ``L1(λ / ε)``.

    Raises:
        StrengthError: the strength is not a finite number ≥ 0.
        RegularizerError: ε is not a finite number > 0.

    Source: Candès, Wakin and Boyd, Enhancing sparsity by reweighted ℓ₁ minimization (2008); the
    prox: Gong et al., A general iterative shrinkage and thresholding algorithm (2013).
    """

    on_shards: ClassVar[bool] = True

    strength: float
    epsilon: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "epsilon", check_above(self, "epsilon", self.epsilon, 0.0))

    @property
    def weak_convexity(self) -> float:  # type: ignore[override]
        """See :attr:`Regularizer.weak_convexity`."""
        return self.strength / self.epsilon**2

    def _each(self, size: Array, xp: Backend) -> Array:
        return self.strength * xp.log1p(size / self.epsilon)

    def _gradient(self, w: Array, xp: Backend) -> Array:
        return self.strength * xp.sign(w) / (self.epsilon + xp.abs(w))

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        epsilon = self.epsilon
        size = xp.abs(w)
        s = step * self.strength + 0.0 * size
        square = (size + epsilon) * (size + epsilon) - 4 * s
        found = square >= 0
        # |w| − u, where u is the larger root: without a difference of what is nearly equal.
        taken = 2 * s / (size + epsilon + xp.sqrt(xp.where(found, square, 0.0)))
        u = size - taken
        inside = found & (u > 0)
        safe = xp.where(inside, u, 1.0)
        # Whether u is lower than 0, by the difference of the objectives over u. With s ≤ ε² there
        # is one minimum, and it is u.
        lower = safe / 2 - size + s * xp.log1p(safe / epsilon) / safe < 0
        kept = inside & (lower | (s <= epsilon * epsilon))
        # NaN must stay visible.
        return xp.where(kept, w - xp.sign(w) * taken, xp.where(size >= 0, 0.0, w))


def keep_above(w: Array, size: Array, threshold: float | Array, xp: Backend) -> Array:
    """w where the size is above the threshold, else 0; NaN stays visible."""
    return xp.where(size <= threshold, 0.0, w)
