"""Constraints: penalties that are 0 where they hold, and infinite elsewhere.

Their proximal operator is the projection, whatever the step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from penalize.backends import Array, Backend, guarded
from penalize.errors import RegularizerError
from penalize.regularizers.base import Elementwise, Regularizer, as_number, check_number
from penalize.regularizers.diagonal import ratios
from penalize.regularizers.groups import Grouped
from penalize.regularizers.levels import level


class Constraint(Regularizer):
    """A set, as a penalty: 0 on it, infinite outside. A subclass gives ``_prox``, the projection.

    A multiple of it is the constraint itself. It holds up to rounding: where no element is further
    from its projection than 100 roundings of the dtype, or one rounding where that is coarse (half
    precision).
    """

    strengths: ClassVar[tuple[str, ...]] = ()
    differentiable: ClassVar[bool] = False
    no_kinks = 'it is a constraint. Use mode="proximal"'

    def _value(self, w: Array, xp: Backend) -> Array:
        return self._indicator(w, xp.eps(w), xp)

    def _value_of(self, w: Array, xp: Backend) -> Array:
        return self._indicator(xp.wide(w), xp.eps(w), xp)

    def _indicator(self, w: Array, eps: float, xp: Backend) -> Array:
        far = xp.abs(w - self._prox(w, 1.0, xp))
        scale = self._scale(w, xp)
        tolerance = (eps if eps > 1e-4 else 100 * eps) * xp.where(scale < math.inf, scale, 0.0)
        nan = xp.where(far <= 0, 0.0, xp.where(far > 0, 0.0, far))
        value = xp.sum(xp.where(far > tolerance, math.inf, nan))
        return guarded(value, w, xp, self.check_gradient)

    def _scale(self, w: Array, xp: Backend) -> Array:
        """What rounding errors are relative to."""
        return xp.abs(w)

    def merged(self, other: Regularizer) -> Self | None:
        return self if other == self else None


@dataclass(frozen=True, repr=False)
class NonNegative(Constraint, Elementwise):
    """The constraint that every element is ≥ 0. ``prox``, with any steps, is max(w, 0).

    Keras' ``NonNeg``. Together with an ``L1`` it is their one-sided soft threshold.

    Raises:
        NoGradientError: by ``gradient``. It acts in ``mode="proximal"``.

    Source: Lawson and Hanson, Solving least squares problems (1974).
    """

    on_shards: ClassVar[bool] = True
    prox_follows_l1: ClassVar[bool] = True
    weak_convexity: ClassVar[float | None] = 0.0

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        return xp.where(w < 0, 0.0, w)


@dataclass(frozen=True, repr=False)
class Box(Constraint, Elementwise):
    """The constraint that every element lies in [low, high].

    ``prox``, with any steps, is clip(w, low, high).

    Args:
        low: the least value; by default there is none.
        high: the greatest value; by default there is none.

    Raises:
        RegularizerError: the bounds are no numbers, or no number lies between them.
        NoGradientError: by ``gradient``. It acts in ``mode="proximal"``.

    Source: Bertsekas, On the Goldstein-Levitin-Polyak gradient projection method (1976).
    """

    on_shards: ClassVar[bool] = True
    prox_follows_l1: ClassVar[bool] = True  # on a line, a minimum in an interval is the clipped one
    weak_convexity: ClassVar[float | None] = 0.0

    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = as_number(self.low), as_number(self.high)
        if not (low <= high and low < math.inf and high > -math.inf):
            raise RegularizerError(
                f"Box got low={self.low!r} and high={self.high!r}",
                "expected numbers, the first not greater than the second",
            )
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        return xp.clip(w, self.low, self.high)


@dataclass(frozen=True, repr=False)
class Simplex(Constraint, Grouped):
    """The constraint that a group is ≥ 0 and sums to a total: mixing weights, or probabilities.

    ``prox`` is u_i = (w_i − ν)_+, and (w_i − ν·s_i)_+ with a step s_i per element, where ν is such
    that the group sums to the total. Elements whose step is 0 move only where the others cannot
    make up for them.

    Args:
        total: what a group sums to, > 0.
        groups: as those of :class:`~penalize.GroupLasso`.

    Raises:
        RegularizerError: the total is no finite number > 0.
        GroupsError: the groups are none, overlap, leave indices out, or do not fit the shape.
        NoGradientError: by ``gradient``. It acts in ``mode="proximal"``.

    Source: Held, Wolfe and Crowder, Validation of subgradient optimization (1974).
    """

    weak_convexity: ClassVar[float | None] = 0.0

    total: float = 1.0
    groups: Any = "outputs"

    def __post_init__(self) -> None:
        super().__post_init__()
        total = check_number(
            "Simplex", "total", self.total, lambda t: 0 < t < math.inf, "a finite number > 0"
        )
        object.__setattr__(self, "total", total)

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        groups = self._grouping(w, xp)
        s = xp.full(tuple(w.shape), 1.0, w)
        if len(getattr(step, "shape", ())):
            s = ratios(w, step, groups, xp)
        a = groups.rows(s, 0.0, xp)
        # The projection of w − ν·s is that of w, whatever ν: the second time, the numbers are no
        # larger than the total, so that it is met to the total's rounding, not to that of w.
        for _ in range(2):
            root = level(groups.rows(w, 0.0, xp), a, self.total, 0.0, xp)
            w = w - s * groups.spread(groups.per_group(root, w, xp), w, xp)
        return xp.where(w < 0, 0.0, w)

    def _scale(self, w: Array, xp: Backend) -> Array:
        groups = self._grouping(w, xp)
        top = xp.max(groups.rows(xp.abs(w), 0.0, xp))
        return groups.spread(groups.per_group(top, w, xp), w, xp)

    def _why_not_prox(self, per_element: bool) -> str:
        return ""  # one step or an array
