"""The kinks of a penalty at zero, of known size: what a gradient has to overcome there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from penalize.backends import Array, Backend
from penalize.regularizers.grouping import Grouping, grouping_of


@dataclass(frozen=True)
class Kinks:
    """Ω as λ‖w‖₁ + Σ_g λ_g‖w_g‖ and a function that is smooth at every zero.

    A size may be an array, as at a step of a schedule; None is no kink, and 0 one that is off.
    """

    element: Any = None
    """λ."""

    groups: Any = None
    """Which groups, as a group lasso takes them."""

    plain: Any = None
    """The part of λ_g that is the same for each group."""

    by_size: Any = None
    """The part of λ_g that is multiplied by √|g|."""

    @property
    def none(self) -> bool:
        """Whether Ω is smooth at zero."""
        return self.element is None and not self.grouped

    @property
    def grouped(self) -> bool:
        """Whether there are groups with a kink."""
        return self.plain is not None or self.by_size is not None

    def joined(self, other: Kinks) -> Kinks | None:
        """The kinks of a sum; None where the groups of the two are not the same."""
        if self.grouped and other.grouped and self.groups != other.groups:
            return None
        return Kinks(
            _sum(self.element, other.element),
            self.groups if self.grouped else other.groups,
            _sum(self.plain, other.plain),
            _sum(self.by_size, other.by_size),
        )

    def sizes(self, w: Array, xp: Backend) -> tuple[Grouping, Any]:
        """The groups of w, and λ_g."""
        groups = grouping_of(self.groups, xp.shape(w))
        size = 0.0 if self.plain is None else self.plain
        if self.by_size is not None:
            size = size + self.by_size * groups.root_sizes(w, xp)
        return groups, size


def _sum(a: Any, b: Any) -> Any:
    return b if a is None else a if b is None else a + b
