"""Penalties on groups of elements that vanish together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from penalize.backends import Array, Backend
from penalize.regularizers import grouping
from penalize.regularizers.base import Regularizer, check_above, check_between
from penalize.regularizers.diagonal import shrink_groups
from penalize.regularizers.elementwise import L1
from penalize.regularizers.nonconvex import mcp, mcp_prox
from penalize.regularizers.place import Place


class Grouped(Regularizer):
    """What has a field ``groups``: see :class:`GroupLasso`."""

    groups: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "groups", grouping.normalise(self.groups))

    def resolve(self, place: Place) -> Self:
        return self._with(groups=grouping.resolve(self.groups, place))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "groups": grouping.as_data(self.groups)}

    def _grouping(self, w: Array, xp: Backend) -> grouping.Grouping:
        return grouping.grouping_of(self.groups, xp.shape(w))


def norms_of(w: Array, groups: grouping.Grouping, xp: Backend) -> tuple[Array, Array]:
    """‖w_g‖, with derivative 0 for a group of zeros; and the same with 1 for a group of zeros."""
    squares = groups.sum(w * w, xp)
    # √ has no derivative at 0; a group of zeros gets the constant 0, so autodiff gives 0.
    # The comparison is false for NaN, which must stay visible.
    zero = squares <= 0
    roots = xp.sqrt(xp.where(zero, 1.0, squares))
    return xp.where(zero, 0.0, roots), roots


@dataclass(frozen=True, repr=False)
class GroupLasso(Grouped):
    """The group lasso: λ Σ_g √|g| ‖w_g‖₂. Whole groups become exactly zero.

    ``gradient`` is λ√|g|·w_g/‖w_g‖, and 0 for a group of zeros; ``prox`` shrinks each group,
    w_g·max(1 − step·λ√|g|/‖w_g‖, 0).

    With a step s_i per element ``prox`` is u_i = w_i·r/(r + c_i), where c_i = s_i·λ√|g| and r is
    the root of Σ_g w_i²/(r + c_i)² = 1; the group is 0 where Σ_g (w_i/c_i)² ≤ 1. A fixed number of
    bisections and Newton steps finds the root to rounding.

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

    prox_follows_l1: ClassVar[bool] = True
    weak_convexity: ClassVar[float | None] = 0.0

    strength: float
    groups: Any = "outputs"
    size_weighted: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "size_weighted", bool(self.size_weighted))

    @property
    def on_shards(self) -> bool:  # type: ignore[override]
        return not isinstance(self.groups, grouping.Blocks)  # a shard may end within a block

    def _weights(self, w: Array, groups: grouping.Grouping, xp: Backend) -> Any:
        """λ√|g|."""
        return self.strength * (groups.root_sizes(w, xp) if self.size_weighted else 1.0)

    def _value(self, w: Array, xp: Backend) -> Array:
        groups = self._grouping(w, xp)
        norms, _ = norms_of(w, groups, xp)
        return groups.total(self._weights(w, groups, xp) * norms, xp)

    def _gradient(self, w: Array, xp: Backend) -> Array:
        groups = self._grouping(w, xp)
        _, roots = norms_of(w, groups, xp)
        return w * groups.spread(self._weights(w, groups, xp) / roots, w, xp)

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        groups = self._grouping(w, xp)
        weights = self._weights(w, groups, xp)
        if len(getattr(step, "shape", ())):
            return shrink_groups(w, step * groups.spread(weights, w, xp), groups, xp)
        norms, roots = norms_of(w, groups, xp)
        threshold = step * weights
        scale = xp.where(norms <= threshold, 0.0, 1 - threshold / roots)
        return w * groups.spread(scale, w, xp)

    def _no_prox(self, per_element: bool) -> str:
        return ""  # one step or an array


@dataclass(frozen=True, repr=False)
class SparseGroupLasso(Grouped):
    """The sparse group lasso: λ (α‖w‖₁ + (1 − α) Σ_g √|g| ‖w_g‖₂).

    The sum of an :class:`L1` and a :class:`GroupLasso`, in the words of its paper: groups vanish,
    and elements within the groups that stay. ``gradient`` is that of the sum; ``prox`` is
    soft-thresholding, then the shrinkage of groups, with one step or one per element.

    Args:
        strength: λ, finite and ≥ 0.
        alpha: α, from 0 (groups only) to 1 (elements only).
        groups, size_weighted: as for :class:`GroupLasso`.

    Raises:
        StrengthError: the strength is not a finite number ≥ 0.
        RegularizerError: α is not from 0 to 1.
        GroupsError: as for :class:`GroupLasso`.

    Source: Simon, Friedman, Hastie and Tibshirani, A sparse-group lasso (2013).
    """

    prox_follows_l1: ClassVar[bool] = True
    weak_convexity: ClassVar[float | None] = 0.0

    strength: float
    alpha: float = 0.5
    groups: Any = "outputs"
    size_weighted: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "alpha", check_between(self, "alpha", self.alpha, 0.0, 1.0))
        object.__setattr__(self, "size_weighted", bool(self.size_weighted))

    @property
    def on_shards(self) -> bool:  # type: ignore[override]
        return not isinstance(self.groups, grouping.Blocks)

    def _parts(self) -> tuple[L1, GroupLasso]:
        lasso = GroupLasso(1.0, self.groups, self.size_weighted)
        strength: Any = self.strength
        return L1(1.0).scaled(strength * self.alpha), lasso.scaled(strength * (1 - self.alpha))

    def _value(self, w: Array, xp: Backend) -> Array:
        elements, groups = self._parts()
        return elements._value(w, xp) + groups._value(w, xp)

    def _gradient(self, w: Array, xp: Backend) -> Array:
        elements, groups = self._parts()
        return elements._gradient(w, xp) + groups._gradient(w, xp)

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        elements, groups = self._parts()
        return groups._prox(elements._prox(w, step, xp), step, xp)

    def _no_prox(self, per_element: bool) -> str:
        return ""

    def split(self) -> tuple[float, float, tuple[Regularizer, ...]]:
        elements, groups = self._parts()
        return elements.strength, 0.0, (groups,)


@dataclass(frozen=True, repr=False)
class GroupMCP(Grouped):
    """The minimax concave penalty of group norms: factor · Σ_g MCP_{λ√|g|, γ}(‖w_g‖₂).

    Groups vanish as under the group lasso, and large ones are not shrunk. ``gradient`` is that of
    :class:`MCP` at the norm of each group, along the group; ``prox`` sets the norm of each group to
    the prox of :class:`MCP` there. It takes one step: with one per element no closed form is known.

    Args:
        strength: λ, finite and ≥ 0.
        gamma: γ > 1.
        groups, size_weighted: as for :class:`GroupLasso`.
        factor: multiplies all of it; ``2 * r`` and schedules do so.

    Raises:
        StrengthError: the strength or factor is not a finite number ≥ 0.
        RegularizerError: γ is not a finite number > 1.
        GroupsError: as for :class:`GroupLasso`.

    Source: Huang, Breheny and Ma, A selective review of group selection in high-dimensional models
    (2012).
    """

    strengths: ClassVar[tuple[str, ...]] = ("strength", "factor")
    factors: ClassVar[tuple[str, ...] | None] = ("factor",)

    strength: float
    gamma: float = 3.0
    groups: Any = "outputs"
    size_weighted: bool = True
    factor: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "gamma", check_above(self, "gamma", self.gamma, 1.0))
        object.__setattr__(self, "size_weighted", bool(self.size_weighted))

    @property
    def on_shards(self) -> bool:  # type: ignore[override]
        return not isinstance(self.groups, grouping.Blocks)

    @property
    def weak_convexity(self) -> float:  # type: ignore[override]
        """See :attr:`Regularizer.weak_convexity`."""
        return self.factor / self.gamma

    def _slopes(self, w: Array, groups: grouping.Grouping, xp: Backend) -> Any:
        """λ√|g|."""
        return self.strength * (groups.root_sizes(w, xp) if self.size_weighted else 1.0)

    def _value(self, w: Array, xp: Backend) -> Array:
        groups = self._grouping(w, xp)
        norms, _ = norms_of(w, groups, xp)
        each = mcp(norms, self._slopes(w, groups, xp), self.gamma, xp)
        return self.factor * groups.total(each, xp)

    def _gradient(self, w: Array, xp: Backend) -> Array:
        groups = self._grouping(w, xp)
        norms, roots = norms_of(w, groups, xp)
        left = self._slopes(w, groups, xp) - norms / self.gamma
        slope = xp.where(left > 0, left, 0.0 * left)
        return self.factor * w * groups.spread(slope / roots, w, xp)

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        groups = self._grouping(w, xp)
        norms, roots = norms_of(w, groups, xp)
        slopes = self._slopes(w, groups, xp)
        new = mcp_prox(norms, step * self.factor, slopes, self.gamma, xp)
        # A norm that stays gives 1 exactly.
        return w * groups.spread(xp.where(norms <= 0, 0.0 * norms, new / roots), w, xp)
