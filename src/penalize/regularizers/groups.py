"""Penalties on groups of elements that vanish together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, cast

from penalize.backends import Array, Backend, is_cut
from penalize.regularizers import grouping
from penalize.regularizers.base import Regularizer, check_number, check_strength
from penalize.regularizers.diagonal import shrink_groups
from penalize.regularizers.elementwise import L1, above_zero, largest, soft_threshold
from penalize.regularizers.kinks import Kinks
from penalize.regularizers.place import Place


def _unless_blocks(self: Any) -> bool:
    """Whether no group is a block of an axis."""
    return not isinstance(self.groups, grouping.Blocks)


sums_only = property(_unless_blocks)
"""``on_shards`` of what asks a group for sums alone. A shard may end within a block, though."""


class Grouped(Regularizer):
    """A penalty with ``groups=``: put in one form, resolved for a parameter, and saved."""

    groups_vanish: ClassVar[bool] = False
    """Whether the elements of a group become zero together."""

    groups: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "groups", grouping.normalise(self.groups))

    def resolve(self, place: Place) -> Self:
        new: Self = replace(cast(Any, self), groups=grouping.resolve(self.groups, place))
        return new

    def by_rows(self, ndim: int) -> tuple[Regularizer, int] | None:
        leading = grouping.leading_axes(self.groups, ndim)
        return None if leading is None else (self._with(groups=0), leading)

    def by_columns(self, ndim: int) -> tuple[Regularizer, int] | None:
        trailing = grouping.trailing_axes(self.groups, ndim)
        return None if trailing is None else (self._with(groups=0), trailing)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "groups": grouping.as_data(self.groups)}

    def _grouping(self, w: Array, xp: Backend) -> grouping.Grouping:
        return grouping.grouping_of(self.groups, xp.shape(w))


@dataclass(frozen=True)
class Norms:
    """‖w_g‖ of each group, at a scale at which no square overflows or vanishes."""

    groups: grouping.Grouping
    scales: Array
    """A power of two near Σ_g |w| where that is far from 1, else 1: it rounds nothing."""

    parts: Array
    """w_g over its scale."""

    lengths: Array
    """The norms of the parts, and 1 for a group of zeros: the root has no derivative at 0."""

    zero: Array
    """Whether all of a group is 0; false where it holds a NaN, which must stay visible."""

    each: Array
    """‖w_g‖, with derivative 0 at 0."""

    def left(self, threshold: Array, xp: Backend) -> Array:
        """(1 − threshold/‖w_g‖)_+, and 1 where the threshold is 0."""
        gone = self.each < threshold
        # In a branch that is not taken, too, a derivative must be finite.
        norms = xp.where(gone, 1.0, self.scales * self.lengths)
        return xp.where(gone, 0.0, 1 - threshold / norms)


def norms_of(w: Array, groups: grouping.Grouping, xp: Backend) -> Norms:
    """The norms of the groups of w."""
    scales, parts = at_scale(w, groups, xp)
    squares = groups.sum(parts * parts, xp)
    zero = squares <= 0
    lengths = xp.sqrt(xp.where(zero, 1.0, squares))
    return Norms(groups, scales, parts, lengths, zero, xp.where(zero, 0.0, scales * lengths))


def at_scale(w: Array, groups: grouping.Grouping, xp: Backend) -> tuple[Any, Array]:
    """A scale for each group, and w over it; see :class:`Norms`.

    Shards are taken at the scale 1, as another sum over the ranks would cost more than it helps.
    """
    if is_cut(xp):
        return 1.0, w
    sums = groups.sum(xp.abs(xp.stop(w)), xp)
    # A third of the exponents on either side, so that squares stay within what there is. ‖w_g‖ is
    # the same at any scale: it is a constant to differentiation.
    far = 2.0 ** ((127 if xp.eps(w) > 1e-10 else 1023) // 3)
    one = xp.full((), 1.0, w)
    # (XLA may square the scale of a constant: that of zeros must not vanish.)
    small = (sums <= 1 / far) & (sums > 0)
    scales = xp.where(sums >= far, far * far * one, xp.where(small, one / far / far, one))
    return scales, w * groups.spread(1 / scales, w, xp)


class ByNorm(Grouped):
    """A penalty on ‖w_g‖ with the strength λ√|g|."""

    groups_vanish: ClassVar[bool] = True

    strength: float
    size_weighted: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "size_weighted", bool(self.size_weighted))

    def _norms(self, w: Array, xp: Backend) -> tuple[Norms, Any]:
        """The norms of the groups, and λ√|g|."""
        groups = self._grouping(w, xp)
        weights = self.strength * (groups.root_sizes(w, xp) if self.size_weighted else 1.0)
        return norms_of(w, groups, xp), weights

    def _kinks_of(self, size: Any) -> Kinks:
        """A kink of this size at each group that is 0, times √|g| where groups are so weighted."""
        if self.size_weighted:
            return Kinks(groups=self.groups, by_size=size)
        return Kinks(groups=self.groups, plain=size)


@dataclass(frozen=True, repr=False)
class GroupLasso(ByNorm):
    """The group lasso: λ Σ_g √|g| ‖w_g‖₂. Whole groups become exactly zero.

    ``gradient`` is λ√|g|·w_g/‖w_g‖, and 0 for a group of zeros; ``prox`` shrinks each group,
    w_g·max(1 − step·λ√|g|/‖w_g‖, 0).

    With a step s_i per element ``prox`` is u_i = w_i·r/(r + c_i), where c_i = s_i·λ√|g| and r is
    the root of Σ_g w_i²/(r + c_i)² = 1; the group is 0 where Σ_g (w_i/c_i)² ≤ 1. Bisections and
    Newton steps find the root to rounding.

    Args:
        strength: λ, finite and ≥ 0.
        groups: ``"outputs"`` or ``"inputs"``, resolved by the framework's layout in a plan; an axis
            or axes that index the groups (``groups=0``: one group per row of a matrix); or an
            explicit partition of the flat indices, ``[[0, 1], [2, 3, 4]]``.
        size_weighted: False drops the √|g|.

    Raises:
        StrengthError: the strength is not a finite number ≥ 0.
        GroupsError: the groups are no such thing, overlap, leave indices out, or do not fit the
            array's shape.

    Source: Yuan and Lin, Model selection and estimation in regression with grouped variables
    (2006).
    """

    on_shards = sums_only
    prox_follows_l1: ClassVar[bool] = True
    weak_convexity: ClassVar[float | None] = 0.0

    strength: float
    groups: Any = "outputs"
    size_weighted: bool = True

    @classmethod
    def from_lasso(cls, alpha: float, groups: Any) -> Self:
        """The group lasso of skglm's and celer's ``GroupLasso(alpha)``.

        ``GroupLasso(2 * alpha, groups, size_weighted=False)``: they minimise
        ‖y − Xw‖²/(2n) + α Σ_g ‖w_g‖, without √|g|. The squared error of ``nn.MSELoss`` has no
        half: beside it, of one output, the solution is the same.

        Args:
            alpha: α, finite and ≥ 0.
            groups: as those of the class.

        Raises:
            StrengthError: alpha is not a finite number ≥ 0.
            GroupsError: the groups are none.
        """
        strength = 2 * check_strength(cls.__name__, "alpha", alpha)
        return cls(strength, groups, size_weighted=False)

    def _value(self, w: Array, xp: Backend) -> Array:
        norms, weights = self._norms(w, xp)
        return norms.groups.total(weights * norms.each, xp)

    def _gradient(self, w: Array, xp: Backend) -> Array:
        norms, weights = self._norms(w, xp)
        return norms.parts * norms.groups.spread(weights / norms.lengths, w, xp)

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        if len(getattr(step, "shape", ())):
            return self._prox_per_element(w, step, xp)
        norms, weights = self._norms(w, xp)
        return w * norms.groups.spread(norms.left(step * weights, xp), w, xp)

    def _strength_max(self, gradient: Array, xp: Backend) -> Array:
        above_zero(self, self.strength)
        norms, weights = self._norms(gradient, xp)
        return largest(norms.groups.spread(norms.each / weights, gradient, xp), xp)

    def kinks(self) -> Kinks:
        return self._kinks_of(self.strength)

    def _prox_per_element(self, w: Array, steps: Array, xp: Backend) -> Array:
        groups = self._grouping(w, xp)
        shrink = steps * groups.spread(self.strength, w, xp)  # a tangent has one for each group
        if self.size_weighted:
            shrink = shrink * groups.spread(groups.root_sizes(w, xp), w, xp)
        return shrink_groups(w, shrink, groups, xp)

    def _why_not_prox(self, per_element: bool) -> str:
        return ""  # one step or an array


@dataclass(frozen=True, repr=False)
class SparseGroupLasso(Grouped):
    """The sparse group lasso: λ[α‖w‖₁ + (1 − α) Σ_g √|g| ‖w_g‖₂]. Groups vanish; others thin out.

    ``L1(λα) + GroupLasso(λ(1 − α))`` under one strength. ``gradient`` is the sum of theirs;
    ``prox`` is soft-thresholding by step·λα, then the prox of the group lasso, with a step per
    element too.

    Args:
        strength: λ, finite and ≥ 0.
        alpha: α, from 0 (a group lasso) to 1 (a lasso).
        groups: as those of :class:`GroupLasso`.
        size_weighted: False drops the √|g|.

    Raises:
        StrengthError: the strength is not a finite number ≥ 0.
        RegularizerError: alpha is no number from 0 to 1.
        GroupsError: the groups are none, overlap, leave indices out, or do not fit the shape.

    Source: Simon, Friedman, Hastie and Tibshirani, A sparse-group lasso (2013).
    """

    on_shards = sums_only
    groups_vanish: ClassVar[bool] = True
    prox_follows_l1: ClassVar[bool] = True
    weak_convexity: ClassVar[float | None] = 0.0

    strength: float
    alpha: float = 0.5
    groups: Any = "outputs"
    size_weighted: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        alpha = check_number(
            "SparseGroupLasso", "alpha", self.alpha, lambda a: 0 <= a <= 1, "a number from 0 to 1"
        )
        object.__setattr__(self, "alpha", alpha)
        object.__setattr__(self, "size_weighted", bool(self.size_weighted))

    def _parts(self) -> tuple[L1, GroupLasso]:
        # The strength at a step of training may be an array, which no constructor takes.
        lasso, groups = L1(self.alpha), GroupLasso(1 - self.alpha, self.groups, self.size_weighted)
        return lasso.scaled(self.strength), groups.scaled(self.strength)

    def _value(self, w: Array, xp: Backend) -> Array:
        lasso, groups = self._parts()
        return lasso._value(w, xp) + groups._value(w, xp)

    def _gradient(self, w: Array, xp: Backend) -> Array:
        lasso, groups = self._parts()
        return lasso._gradient(w, xp) + groups._gradient(w, xp)

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        lasso, groups = self._parts()
        return groups._prox(soft_threshold(w, step * lasso.strength, xp), step, xp)

    def _why_not_prox(self, per_element: bool) -> str:
        return ""  # one step or an array

    def kinks(self) -> Kinks:
        lasso, groups = self._parts()
        both = lasso.kinks().joined(groups.kinks())
        assert both is not None  # one has no groups
        return both

    def split(self) -> tuple[float, float, tuple[Regularizer, ...]]:
        lasso, groups = self._parts()
        return lasso.strength, 0.0, (groups,)
