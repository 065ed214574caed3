"""Constraints as regularizers: 0 where they hold, infinite elsewhere; their prox is the projection.

They act in ``mode="proximal"`` alone, and are projected onto after each update, whatever the step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from penalize.backends import Array, Backend, open_array
from penalize.errors import RegularizerError
from penalize.regularizers import grouping
from penalize.regularizers.base import Regularizer, check_above, check_between
from penalize.regularizers.groups import Grouped, norms_of
from penalize.regularizers.levels import level


class Constraint(Regularizer):
    """A set C, as the function that is 0 in it and infinite elsewhere.

    Whether w is in C is asked to within rounding: whether its projection is no further from it,
    element by element, than a few units in the last place.
    """

    strengths: ClassVar[tuple[str, ...]] = ()
    differentiable: ClassVar[bool] = False

    def __call__(self, w: Array) -> Array:
        self._check_steady()
        w, xp = open_array(w, whole=not self.on_shards)
        return self._held(xp.wide(w), xp.eps(w), xp)

    def _value(self, w: Array, xp: Backend) -> Array:
        return self._held(w, xp.eps(w), xp)

    def _held(self, w: Array, eps: float, xp: Backend) -> Array:
        """0 or infinite; NaN stays visible. The numbers came with this precision."""
        tolerance = eps if eps > 1e-4 else 100 * eps
        projected = self._prox(w, 1.0, xp)
        excess = xp.abs(w - projected) - tolerance * self._size(projected, xp)
        # For NaN both comparisons are false, and it stays.
        return xp.sum(xp.where(excess <= 0, 0.0, xp.where(excess > 0, math.inf, excess)))

    def _size(self, projected: Array, xp: Backend) -> Array:
        """What an element may be off by is relative to this."""
        return xp.abs(projected)


@dataclass(frozen=True, repr=False)
class NonNegative(Constraint):
    """w ≥ 0.

    ``prox`` is max(w, 0).

    Raises:
        NoGradientError: when a gradient is asked for.

    Source: Parikh and Boyd, Proximal algorithms (2014), as for all projections here.
    """

    elementwise: ClassVar[bool] = True
    on_shards: ClassVar[bool] = True
    prox_follows_l1: ClassVar[bool] = True
    weak_convexity: ClassVar[float | None] = 0.0

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        return xp.where(w < 0, 0.0, w)


@dataclass(frozen=True, repr=False)
class Box(Constraint):
    """low ≤ w ≤ high.

    ``prox`` limits w to that.

    Args:
        low: a number, or −∞.
        high: a number ≥ low, or ∞.

    Raises:
        RegularizerError: the bounds are no numbers, or low is above high.
        NoGradientError: when a gradient is asked for.

    Source: Parikh and Boyd, Proximal algorithms (2014).
    """

    elementwise: ClassVar[bool] = True
    on_shards: ClassVar[bool] = True
    prox_follows_l1: ClassVar[bool] = True
    weak_convexity: ClassVar[float | None] = 0.0

    low: float
    high: float

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("low", "high"):
            bound = check_between(self, name, getattr(self, name), -math.inf, math.inf)
            object.__setattr__(self, name, bound)
        if self.low > self.high:
            raise RegularizerError(
                f"Box got low={self.low!r} above high={self.high!r}", "exchange them"
            )

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        return xp.clip(w, self.low, self.high)


@dataclass(frozen=True, repr=False)
class MaxNorm(Grouped, Constraint):
    """‖w_g‖₂ ≤ c for each group.

    ``prox`` shrinks the longer groups to length c. With a step per element it is the projection in
    the metric of the steps, u_i = w_i/(1 + ν·step_i) with the ν for which ‖u‖ = c, found by a fixed
    number of rounds to rounding.

    Args:
        max_value: c > 0.
        groups: as for :class:`GroupLasso`. One group per unit: ``"outputs"``.

    Raises:
        RegularizerError: c is not a finite number > 0.
        GroupsError: as for :class:`GroupLasso`.
        NoGradientError: when a gradient is asked for.

    Source: Srivastava et al., Dropout: a simple way to prevent neural networks from overfitting
    (2014).
    """

    prox_follows_l1: ClassVar[bool] = True
    weak_convexity: ClassVar[float | None] = 0.0

    max_value: float
    groups: Any = "outputs"

    def __post_init__(self) -> None:
        super().__post_init__()
        bound = check_above(self, "max_value", self.max_value, 0.0)
        object.__setattr__(self, "max_value", bound)

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        groups = self._grouping(w, xp)
        if len(getattr(step, "shape", ())):
            return _onto_ball(w, step, self.max_value, groups, xp)
        norms, roots = norms_of(w, groups, xp)
        scale = xp.where(norms <= self.max_value, 1.0, self.max_value / roots)
        return w * groups.spread(scale, w, xp)

    def _no_prox(self, per_element: bool) -> str:
        return ""


_ROUNDS = 60


def _onto_ball(
    w: Array, steps: Array, radius: float, groups: grouping.Grouping, xp: Backend
) -> Array:
    """argmin_u Σ (u_i − w_i)²/step_i with ‖u_g‖ ≤ radius.

    u_i = w_i/(1 + ν·h_i), with h_i the step over the largest of its group, and the ν ≥ 0 for which
    ‖u‖ = radius. 1/‖u‖ is concave in ν, as in :mod:`penalize.regularizers.diagonal`: Newton's steps
    for 1/‖u‖ = 1/radius go up and never beyond the root. A bisection of the exponent after each
    bounds their number where the steps differ by orders of magnitude.
    """
    norms, _ = norms_of(w, groups, xp)
    outside = norms > radius
    largest = groups.per_group(xp.max(groups.rows(steps, 0.0, xp)), w, xp)
    none = groups.spread(largest <= 0, w, xp)  # without any step, they are alike
    h = xp.where(none, 1.0, steps / xp.where(none, 1.0, groups.spread(largest, w, xp)))
    smallest = -groups.per_group(xp.max(groups.rows(-h, -math.inf, xp)), w, xp)
    excess = xp.where(outside, norms / radius - 1, 0.0 * norms)
    low = excess  # as if every step were the largest
    high = excess / xp.where(smallest > 1e-30, smallest, 1e-30 + 0.0 * smallest)
    for number in range(_ROUNDS):
        nu = xp.sqrt(low) * xp.sqrt(high) if number % 2 else low
        reach = 1 + groups.spread(nu, w, xp) * h
        u = w / reach
        length = groups.sum(u * u, xp)
        slope = groups.sum(u * u * (h / reach), xp)
        long = length > radius * radius
        newton = nu + length * (xp.sqrt(xp.where(long, length, 1.0)) / radius - 1) / xp.where(
            slope > 0, slope, 1.0
        )
        low = xp.where(long, newton, low)
        high = xp.where(long, high, nu)
    moved = w / (1 + groups.spread(xp.where(outside, low, 0.0 * low), w, xp) * h)
    return xp.where(groups.spread(outside, w, xp), moved, w)


@dataclass(frozen=True, repr=False)
class MinMaxNorm(Grouped, Constraint):
    """min ≤ ‖w_g‖₂ ≤ max for each group.

    ``prox`` brings each group to the nearest such length. A group of zeros has no direction; where
    min > 0 it goes to equal elements. With a step per element it is not known, and refused.

    Args:
        min_value: finite and ≥ 0.
        max_value: finite, ≥ min_value and > 0.
        groups: as for :class:`GroupLasso`.

    Raises:
        RegularizerError: the bounds are no such numbers.
        GroupsError: as for :class:`GroupLasso`.
        NoGradientError: when a gradient is asked for.

    Source: Keras, ``keras.constraints.MinMaxNorm``, with rate 1.
    """

    min_value: float
    max_value: float
    groups: Any = "outputs"

    def __post_init__(self) -> None:
        super().__post_init__()
        high = check_above(self, "max_value", self.max_value, 0.0)
        low = check_between(self, "min_value", self.min_value, 0.0, high)
        object.__setattr__(self, "min_value", low)
        object.__setattr__(self, "max_value", high)

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        return _to_length(w, self._grouping(w, xp), self.min_value, self.max_value, xp)


@dataclass(frozen=True, repr=False)
class UnitNorm(Grouped, Constraint):
    """‖w_g‖₂ = 1 for each group.

    ``prox`` is w_g/‖w_g‖; a group of zeros has no direction, and goes to equal elements. With a
    step per element it is not known, and refused.

    Args:
        groups: as for :class:`GroupLasso`.

    Raises:
        GroupsError: as for :class:`GroupLasso`.
        NoGradientError: when a gradient is asked for.

    Source: Keras, ``keras.constraints.UnitNorm``.
    """

    groups: Any = "outputs"

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        return _to_length(w, self._grouping(w, xp), 1.0, 1.0, xp)


def _to_length(w: Array, groups: grouping.Grouping, low: float, high: float, xp: Backend) -> Array:
    # First to a size whose square neither overflows nor vanishes.
    largest = groups.per_group(xp.max(groups.rows(xp.abs(w), 0.0, xp)), w, xp)
    zero = largest <= 0
    unit = xp.where(zero, 1.0, largest)
    x = xp.where(groups.spread(zero, w, xp), 1.0 + 0.0 * w, w / groups.spread(unit, w, xp))
    _, roots = norms_of(x, groups, xp)
    norms = xp.where(zero, 0.0, unit * roots)
    wanted = xp.clip(norms, low, high)
    scale = xp.where(zero, wanted / roots, wanted / (unit * roots))
    start = xp.where(groups.spread(zero, w, xp), x, w)
    return start * groups.spread(scale, w, xp)


@dataclass(frozen=True, repr=False)
class Simplex(Grouped, Constraint):
    """w_g ≥ 0 and Σ w_g = total for each group: shares of a whole.

    ``prox`` is max(w_i − ν·step_i, 0) with the ν for which the sum is right (one step: ν itself).

    Args:
        total: finite and > 0.
        groups: as for :class:`GroupLasso`.

    Raises:
        RegularizerError: the total is not a finite number > 0.
        GroupsError: as for :class:`GroupLasso`.
        NoGradientError: when a gradient is asked for.

    Source: Duchi, Shalev-Shwartz, Singer and Chandra, Efficient projections onto the ℓ₁-ball
    (2008).
    """

    weak_convexity: ClassVar[float | None] = 0.0

    total: float = 1.0
    groups: Any = "outputs"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "total", check_above(self, "total", self.total, 0.0))

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        groups = self._grouping(w, xp)
        if len(getattr(step, "shape", ())):
            # Only ratios of steps matter; where all are 0, they are alike.
            a = xp.where(step > 0, step, 1e-30 + 0.0 * step)
        else:
            a = 1.0 + 0.0 * w
        rows = groups.rows(w / a, 0.0, xp), groups.rows(a, 0.0, xp)
        found = groups.per_group(level(*rows, self.total, 0.0, xp), w, xp)
        moved = w - a * groups.spread(found, w, xp)
        return xp.where(moved <= 0, 0.0, moved)

    def _size(self, projected: Array, xp: Backend) -> Array:
        return self.total + 0.0 * projected

    def _no_prox(self, per_element: bool) -> str:
        return ""
