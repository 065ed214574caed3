"""Penalties that set the elements of a group against each other, and have to sort them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from penalize.backends import Array, Backend
from penalize.regularizers.elementwise import soft_threshold
from penalize.regularizers.groups import Grouped
from penalize.regularizers.levels import at_least, level

_OF_ANOTHER_SHAPE = (
    "the kink of a group that is 0 is not that of a norm ‖w_g‖₂. Use "
    'mode="proximal", or a GroupLasso'
)


@dataclass(frozen=True, repr=False)
class LInf1(Grouped):
    """The ℓ₁,∞ norm: λ Σ_g max_{i∈g} |w_i|. Groups vanish, or their largest elements become alike.

    ``gradient`` is λ·sign(w_i)/m at each of the m elements of a group that are largest, and 0 at
    the others and in a group of zeros. ``prox`` cuts each group off, u_i = clip(w_i, −t, t), where
    Σ_g (|w_i| − t)_+ = step·λ, and t = 0 where Σ_g |w_i| ≤ step·λ.

    With a step s_i per element it is Σ_g (|w_i| − t)_+/s_i = λ. An element whose step is 0 stays,
    and t is at least its size.

    Args:
        strength: λ, finite and ≥ 0.
        groups: as those of :class:`GroupLasso`.

    Raises:
        StrengthError: the strength is not a finite number ≥ 0.
        GroupsError: the groups are none, overlap, leave indices out, or do not fit the shape.

    Source: Turlach, Venables and Wright, Simultaneous variable selection (2005); the prox by
    sorting: Duchi and Singer, Efficient online and batch learning using forward backward splitting
    (2009); after the prox of an ℓ₁ norm: Yu, On decomposing the proximal map (2013).
    """

    groups_vanish: ClassVar[bool] = True
    prox_follows_l1: ClassVar[bool] = True
    no_kinks = _OF_ANOTHER_SHAPE
    weak_convexity: ClassVar[float | None] = 0.0

    strength: float
    groups: Any = "outputs"

    def _value(self, w: Array, xp: Backend) -> Array:
        sizes = self._grouping(w, xp).rows(xp.abs(w), 0.0, xp)
        return self.strength * xp.sum(xp.max(sizes))

    def _gradient(self, w: Array, xp: Backend) -> Array:
        groups = self._grouping(w, xp)
        sizes = groups.rows(xp.abs(w), 0.0, xp)
        top = xp.max(sizes)
        count = xp.sum(xp.where(sizes < top, 0.0, 1.0 + 0.0 * sizes), [-1])
        columns = xp.where(top <= 0, 1.0, top), self.strength / count
        top, share = (groups.spread(groups.per_group(x, w, xp), w, xp) for x in columns)
        return share * xp.where(xp.abs(w) < top, 0.0, w / top)

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        groups = self._grouping(w, xp)
        sizes = groups.rows(xp.abs(w), 0.0, xp)
        c = step * self.strength
        gone = c * xp.full(tuple(w.shape), 1.0, w) > 0  # where t is 0
        if len(getattr(step, "shape", ())):
            c = groups.rows(c, 0.0, xp)
            moves, highest = c > 0, xp.max(c)
            c = at_least(xp.eps(w) ** 3 * highest, c, xp)  # beyond all rounding; nothing overflows
            a = xp.where(moves, highest / xp.where(moves, c, 1.0), 0.0)
            t = level(a * sizes, a, highest, 0.0, xp)
            stays = xp.max(xp.where(moves, 0.0, sizes))
            t = xp.where(t < stays, stays, t)
        else:
            t = level(sizes, xp.full(tuple(sizes.shape), 1.0, sizes), c, 0.0, xp)
            t = xp.where(t < 0, 0.0, t)
        t = groups.spread(groups.per_group(t, w, xp), w, xp)
        return xp.where((t <= 0) & gone, 0.0 * w, xp.clip(w, -t, t))

    def _why_not_prox(self, per_element: bool) -> str:
        return ""  # one step or an array


@dataclass(frozen=True, repr=False)
class ExclusiveLasso(Grouped):
    """The exclusive lasso: λ Σ_g (Σ_{i∈g} |w_i|)². The elements of a group compete; few remain.

    ``gradient`` is 2λ‖w_g‖₁·sign(w), 0 at 0. ``prox`` is soft-thresholding by 2λ·step·S_g, where
    S_g is the ℓ₁ norm of its result: Σ_g (|w_i| − 2λ·step·S_g)_+ = S_g; a step per element takes
    the place of the step.

    Args:
        strength: λ, finite and ≥ 0.
        groups: as those of :class:`GroupLasso`.

    Raises:
        StrengthError: the strength is not a finite number ≥ 0.
        GroupsError: the groups are none, overlap, leave indices out, or do not fit the shape.

    Source: Zhou, Jin and Hoi, Exclusive lasso for multi-task feature selection (2010); the prox by
    sorting: Kowalski, Sparse regression using mixed norms (2009). After the prox of an ℓ₁ norm, as
    each shrinks elements towards 0, never across it: Yu, On decomposing the proximal map (2013).
    """

    prox_follows_l1: ClassVar[bool] = True
    no_kinks = _OF_ANOTHER_SHAPE
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
        a = (2 * self.strength) * step * xp.full(tuple(w.shape), 1.0, w)
        sums = level(groups.rows(xp.abs(w), 0.0, xp), groups.rows(a, 0.0, xp), 0.0, 1.0, xp)
        sums = groups.spread(groups.per_group(sums, w, xp), w, xp)
        return xp.where((sums <= 0) & (a > 0), 0.0 * w, soft_threshold(w, a * sums, xp))

    def _why_not_prox(self, per_element: bool) -> str:
        return ""  # one step or an array
