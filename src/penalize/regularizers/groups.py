"""Penalties on groups of elements that vanish together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from penalize.backends import Array, Backend
from penalize.regularizers import grouping
from penalize.regularizers.base import Regularizer


@dataclass(frozen=True, repr=False)
class GroupLasso(Regularizer):
    """The group lasso: λ Σ_g √|g| ‖w_g‖₂. Whole groups become exactly zero.

    ``gradient`` is λ√|g|·w_g/‖w_g‖, and 0 for a group of zeros; ``prox`` shrinks each group,
    w_g·max(1 − step·λ√|g|/‖w_g‖, 0).

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

    strength: float
    groups: Any = "outputs"
    size_weighted: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "groups", grouping.normalise(self.groups))
        object.__setattr__(self, "size_weighted", bool(self.size_weighted))

    def resolve(
        self, axes: Mapping[str, int | None], shape: tuple[int, ...] | None, where: str
    ) -> Self:
        return replace(self, groups=grouping.resolve(self.groups, axes, shape, where))

    def _norms(self, w: Array, xp: Backend) -> tuple[grouping.Grouping, Array, Array, Any]:
        """The grouping, ‖w_g‖, the same with 1 for a group of zeros, and λ√|g|."""
        groups = grouping.grouping_of(self.groups, w.shape)
        squares = groups.sum(w * w, xp)
        # √ has no derivative at 0; a group of zeros gets the constant 0, so autodiff gives 0.
        # The comparison is false for NaN, which must stay visible.
        zero = squares <= 0
        roots = xp.sqrt(xp.where(zero, 1.0, squares))
        weights = self.strength * (groups.root_sizes(w, xp) if self.size_weighted else 1.0)
        return groups, xp.where(zero, 0.0, roots), roots, weights

    def _value(self, w: Array, xp: Backend) -> Array:
        _, norms, _, weights = self._norms(w, xp)
        return xp.sum(weights * norms)

    def _gradient(self, w: Array, xp: Backend) -> Array:
        groups, _, roots, weights = self._norms(w, xp)
        return w * groups.spread(weights / roots, w, xp)

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        groups, norms, roots, weights = self._norms(w, xp)
        threshold = step * weights
        scale = xp.where(norms <= threshold, 0.0, 1 - threshold / roots)
        return w * groups.spread(scale, w, xp)
