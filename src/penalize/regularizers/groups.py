"""Penalties on groups of elements that vanish together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from penalize.backends import Array, Backend
from penalize.regularizers import grouping
from penalize.regularizers.base import Regularizer
from penalize.regularizers.diagonal import shrink_groups
from penalize.regularizers.place import Place


@dataclass(frozen=True, repr=False)
class GroupLasso(Regularizer):
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
        object.__setattr__(self, "groups", grouping.normalise(self.groups))
        object.__setattr__(self, "size_weighted", bool(self.size_weighted))

    def resolve(self, place: Place) -> Self:
        return replace(self, groups=grouping.resolve(self.groups, place))

    @property
    def on_shards(self) -> bool:  # type: ignore[override]
        return not isinstance(self.groups, grouping.Blocks)  # a shard may end within a block

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "groups": grouping.as_data(self.groups)}

    def _norms(self, w: Array, xp: Backend) -> tuple[grouping.Grouping, Array, Array, Any]:
        """The grouping, ‖w_g‖, the same with 1 for a group of zeros, and λ√|g|."""
        groups = grouping.grouping_of(self.groups, xp.shape(w))
        squares = groups.sum(w * w, xp)
        # √ has no derivative at 0; a group of zeros gets the constant 0, so autodiff gives 0.
        # The comparison is false for NaN, which must stay visible.
        zero = squares <= 0
        roots = xp.sqrt(xp.where(zero, 1.0, squares))
        weights = self.strength * (groups.root_sizes(w, xp) if self.size_weighted else 1.0)
        return groups, xp.where(zero, 0.0, roots), roots, weights

    def _value(self, w: Array, xp: Backend) -> Array:
        groups, norms, _, weights = self._norms(w, xp)
        return groups.total(weights * norms, xp)

    def _gradient(self, w: Array, xp: Backend) -> Array:
        groups, _, roots, weights = self._norms(w, xp)
        return w * groups.spread(weights / roots, w, xp)

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        if len(getattr(step, "shape", ())):
            return self._prox_per_element(w, step, xp)
        groups, norms, roots, weights = self._norms(w, xp)
        threshold = step * weights
        scale = xp.where(norms <= threshold, 0.0, 1 - threshold / roots)
        return w * groups.spread(scale, w, xp)

    def _prox_per_element(self, w: Array, steps: Array, xp: Backend) -> Array:
        groups = grouping.grouping_of(self.groups, xp.shape(w))
        shrink = steps * self.strength
        if self.size_weighted:
            shrink = shrink * groups.spread(groups.root_sizes(w, xp), w, xp)
        return shrink_groups(w, shrink, groups, xp)

    def _no_prox(self, per_element: bool) -> str:
        return ""  # one step or an array
