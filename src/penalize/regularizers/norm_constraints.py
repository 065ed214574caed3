"""Constraints on the norm of each group."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from penalize.backends import Array, Backend
from penalize.errors import RegularizerError
from penalize.regularizers.base import as_number, check_number
from penalize.regularizers.constraints import Constraint
from penalize.regularizers.diagonal import cap_groups
from penalize.regularizers.grouping import Grouping
from penalize.regularizers.groups import Grouped, norms_of, sums_only


def to_norm(w: Array, low: float, high: float, groups: Grouping, xp: Backend) -> Array:
    """Each group scaled so that its norm is in [low, high]; one of zeros to equal elements."""
    norms = norms_of(w, groups, xp)
    each = norms.each
    goals = xp.where(each > high, high, xp.where(each < low, low, 0.0 * each))
    goals = xp.where(norms.zero, 0.0, goals)
    stays = xp.where(each > high, 0.0, xp.where(each < low, 0.0, 1.0 + 0.0 * each))
    scaled = norms.parts * groups.spread(goals / norms.lengths, w, xp)
    w = xp.where(groups.spread(stays, w, xp) > 0, w, scaled)
    if low <= 0:
        return w
    equal = xp.where(norms.zero, low + 0.0 * each, 0.0) / groups.root_sizes(w, xp)
    return w + groups.spread(equal, w, xp)


@dataclass(frozen=True, repr=False)
class MaxNorm(Constraint, Grouped):
    """The constraint that the ℓ₂ norm of each group is at most a value.

    ``prox`` scales a group that is beyond down to it, w_g·min(1, c/‖w_g‖). With a step s_i per
    element it is the nearest point in their metric, u_i = w_i/(1 + ν·s_i), where ‖u_g‖ = c;
    bisections and Newton steps find it to rounding. Elements whose step is 0 move only where they
    alone are beyond it.

    Keras' ``MaxNorm(c, axis=0)`` on a dense kernel is ``MaxNorm(c, groups="outputs")``.

    Args:
        max_value: c, finite and ≥ 0.
        groups: as those of :class:`~penalize.GroupLasso`.

    Raises:
        RegularizerError: the value is no finite number ≥ 0.
        GroupsError: the groups are none, overlap, leave indices out, or do not fit the shape.
        NoGradientError: by ``gradient``. It acts in ``mode="proximal"``.

    Source: Srebro, Rennie and Jaakkola, Maximum-margin matrix factorization (2004).
    """

    on_shards = sums_only
    prox_follows_l1: ClassVar[bool] = True
    weak_convexity: ClassVar[float | None] = 0.0

    max_value: float
    groups: Any = "outputs"

    def __post_init__(self) -> None:
        super().__post_init__()
        most = check_number(
            "MaxNorm", "max_value", self.max_value, lambda c: 0 <= c < math.inf, _FINITE
        )
        object.__setattr__(self, "max_value", most)

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        groups = self._grouping(w, xp)
        if len(getattr(step, "shape", ())):
            return cap_groups(w, step, self.max_value, groups, xp)
        return to_norm(w, 0.0, self.max_value, groups, xp)

    def _why_not_prox(self, per_element: bool) -> str:
        return ""  # one step or an array


_FINITE = "a finite number >= 0"


@dataclass(frozen=True, repr=False)
class UnitNorm(Constraint, Grouped):
    """The constraint that the ℓ₂ norm of each group is 1.

    ``prox`` is w_g/‖w_g‖. To a group of zeros every direction is as near; it goes to equal
    elements, 1/√|g|. The set is not convex, and a step per element is refused.

    Keras' ``UnitNorm(axis=0)`` on a dense kernel is ``UnitNorm(groups="outputs")``.

    Args:
        groups: as those of :class:`~penalize.GroupLasso`.

    Raises:
        GroupsError: the groups are none, overlap, leave indices out, or do not fit the shape.
        NoGradientError: by ``gradient``. It acts in ``mode="proximal"``.
        NoProximalOperatorError: by ``prox``, for a step per element.

    Source: Salimans and Kingma, Weight normalization (2016).
    """

    on_shards = sums_only

    groups: Any = "outputs"

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        return to_norm(w, 1.0, 1.0, self._grouping(w, xp), xp)


@dataclass(frozen=True, repr=False)
class MinMaxNorm(Constraint, Grouped):
    """The constraint that the ℓ₂ norm of each group lies in [low, high].

    ``prox`` scales each group to the nearest norm in it. A group of zeros goes to equal elements.
    The set is convex only where the least norm is 0, as :class:`MaxNorm`; else a step per element
    is refused.

    Keras' ``MinMaxNorm(low, high, axis=0)``, at its rate of 1, on a dense kernel is
    ``MinMaxNorm(low, high, groups="outputs")``.

    Args:
        min_value: the least norm, finite and ≥ 0.
        max_value: the greatest norm, finite and not less.
        groups: as those of :class:`~penalize.GroupLasso`.

    Raises:
        RegularizerError: the values are no such numbers.
        GroupsError: the groups are none, overlap, leave indices out, or do not fit the shape.
        NoGradientError: by ``gradient``. It acts in ``mode="proximal"``.
        NoProximalOperatorError: by ``prox``, for a step per element where the least norm is not 0.

    Source: Keras, ``keras.constraints.MinMaxNorm`` (2015).
    """

    on_shards = sums_only

    min_value: float
    max_value: float
    groups: Any = "outputs"

    def __post_init__(self) -> None:
        super().__post_init__()
        least, most = as_number(self.min_value), as_number(self.max_value)
        if not 0 <= least <= most < math.inf:
            raise RegularizerError(
                f"MinMaxNorm got min_value={self.min_value!r} and max_value={self.max_value!r}",
                f"expected {_FINITE} and one that is not less",
            )
        object.__setattr__(self, "min_value", least)
        object.__setattr__(self, "max_value", most)

    @property
    def weak_convexity(self) -> float | None:  # type: ignore[override]
        """0 where the least norm is 0; else the set is not convex."""
        return None if self.min_value else 0.0

    @property
    def prox_follows_l1(self) -> bool:  # type: ignore[override]
        """Whether the least norm is 0."""
        return not self.min_value

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        groups = self._grouping(w, xp)
        if len(getattr(step, "shape", ())):
            return cap_groups(w, step, self.max_value, groups, xp)
        return to_norm(w, self.min_value, self.max_value, groups, xp)

    def _why_not_prox(self, per_element: bool) -> str:
        return super()._why_not_prox(per_element) if self.min_value else ""
