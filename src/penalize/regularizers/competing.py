"""Penalties under which the elements of a group compete: for the largest, or for being there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from penalize.backends import Array, Backend
from penalize.regularizers import grouping
from penalize.regularizers.elementwise import soft_threshold
from penalize.regularizers.groups import Grouped
from penalize.regularizers.levels import level


@dataclass(frozen=True, repr=False)
class LInf1(Grouped):
    """The ℓ₁/ℓ∞ norm: λ Σ_g max_{i ∈ g} |w_i|.

    The largest elements of each group are cut to one size, and groups vanish. ``gradient`` is
    λ·sign(w) on the largest of each group, shared evenly where several are; 0 for a group of zeros.
    ``prox`` is w limited to ±t, where Σ_g (|w_i| − t)₊/step_i = λ, or t = 0 where there is no such
    t > 0; with one step or one per element.

    Args:
        strength: λ, finite and ≥ 0.
        groups: as for :class:`GroupLasso`.

    Raises:
        StrengthError: the strength is not a finite number ≥ 0.
        GroupsError: as for :class:`GroupLasso`.

    Source: Turlach, Venables and Wright, Simultaneous variable selection (2005); the prox:
    Quattoni, Carreras, Collins and Darrell, An efficient projection for ℓ₁,∞ regularization (2009).
    """

    prox_follows_l1: ClassVar[bool] = True
    weak_convexity: ClassVar[float | None] = 0.0

    strength: float
    groups: Any = "outputs"

    def _largest(self, w: Array, groups: grouping.Grouping, xp: Backend) -> Array:
        return groups.per_group(xp.max(groups.rows(xp.abs(w), 0.0, xp)), w, xp)

    def _value(self, w: Array, xp: Backend) -> Array:
        groups = self._grouping(w, xp)
        return self.strength * groups.total(self._largest(w, groups, xp), xp)

    def _gradient(self, w: Array, xp: Backend) -> Array:
        groups = self._grouping(w, xp)
        largest = groups.spread(self._largest(w, groups, xp), w, xp)
        share = xp.where(xp.abs(w) >= largest, 1.0 + 0.0 * w, 0.0 * w)
        return self.strength * xp.sign(w) * share / groups.spread(_count(share, groups, xp), w, xp)

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        groups = self._grouping(w, xp)
        size, steps = xp.abs(w), step + 0.0 * w
        moves = steps > 0
        a = xp.where(moves, 1.0 / xp.where(moves, steps, 1.0), 0.0 * w)
        # An element whose step is 0 stays; the level is that of the others.
        r = xp.where(moves, size, 0.0 * w)
        found = level(groups.rows(r, 0.0, xp), groups.rows(a, 0.0, xp), self.strength, 0.0, xp)
        t = groups.spread(groups.per_group(xp.where(found > 0, found, 0.0), w, xp), w, xp)
        return xp.where(moves, xp.clip(w, -t + 0.0 * w, t + 0.0 * w), w)

    def _no_prox(self, per_element: bool) -> str:
        return ""


def _count(share: Array, groups: grouping.Grouping, xp: Backend) -> Array:
    """How many there are in each group, 1 for an empty one."""
    found = groups.sum(share, xp)
    return xp.where(found <= 0, 1.0, found)


@dataclass(frozen=True, repr=False)
class ExclusiveLasso(Grouped):
    """The exclusive lasso: λ Σ_g (Σ_{i ∈ g} |w_i|)². The elements of a group compete.

    ``gradient`` is 2λ‖w_g‖₁·sign(w), 0 at 0. ``prox`` is soft-thresholding by 2·step_i·λS, where
    S = Σ_g (|w_i| − 2·step_i·λS)₊; with one step or one per element.

    Args:
        strength: λ, finite and ≥ 0.
        groups: as for :class:`GroupLasso`.

    Raises:
        StrengthError: the strength is not a finite number ≥ 0.
        GroupsError: as for :class:`GroupLasso`.

    Source: Zhou, Jin and Hoi, Exclusive lasso for multi-task feature selection (2010).
    """

    prox_follows_l1: ClassVar[bool] = True
    weak_convexity: ClassVar[float | None] = 0.0

    strength: float
    groups: Any = "outputs"

    def _value(self, w: Array, xp: Backend) -> Array:
        groups = self._grouping(w, xp)
        sums = groups.sum(xp.abs(w), xp)
        return self.strength * groups.total(sums * sums, xp)

    def _gradient(self, w: Array, xp: Backend) -> Array:
        groups = self._grouping(w, xp)
        sums = groups.spread(groups.sum(xp.abs(w), xp), w, xp)
        return (2 * self.strength) * sums * xp.sign(w)

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        groups = self._grouping(w, xp)
        a = (2 * self.strength) * step + 0.0 * w
        moves = a > 0
        size = xp.abs(w)
        # An element whose step is 0 stays, and counts in S all the same.
        fixed = groups.rows(xp.where(moves, 0.0 * w, size), 0.0, xp)
        fixed = xp.cumsum(fixed)[:, -1:]
        r = xp.where(moves, size / xp.where(moves, a, 1.0), 0.0 * w)
        rows = groups.rows(r, 0.0, xp), groups.rows(xp.where(moves, a, 0.0 * w), 0.0, xp)
        found = level(*rows, -fixed, 1.0, xp)
        sums = groups.spread(groups.per_group(found, w, xp), w, xp)
        return soft_threshold(w, a * sums, xp)

    def _no_prox(self, per_element: bool) -> str:
        return ""
