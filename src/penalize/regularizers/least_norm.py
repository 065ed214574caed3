"""The subgradient of least norm at a zero: what is left of a gradient that a kink holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from penalize.backends import Array, Backend
from penalize.regularizers.elementwise import soft_threshold
from penalize.regularizers.grouping import Grouping
from penalize.regularizers.groups import norms_of
from penalize.regularizers.kinks import Kinks


@dataclass(frozen=True)
class Zeros:
    """Where a weight is 0 and a kink holds it: arrays of booleans, or None for nowhere."""

    elements: Array | None
    groups: Array | None
    """As it broadcasts to the weight."""


def is_on(size: Any) -> Any:
    """Whether a kink has a size above 0: a boolean, or an array of them."""
    if size is None or isinstance(size, float):
        return bool(size)
    return size > 0


def has_groups(kinks: Kinks) -> bool:
    """Whether a kink of groups may be above 0."""
    sizes = (kinks.plain, kinks.by_size)
    return any(is_on(size) is not False for size in sizes)


def zeros_of(w: Array, kinks: Kinks, xp: Backend) -> Zeros:
    """The zeros that kinks of w hold. A kink of size 0 holds none."""
    elements = groups = None
    on = is_on(kinks.element)
    if on is not False:
        elements = xp.abs(w) <= 0
        elements = elements if on is True else elements & on
    if has_groups(kinks):
        grouping, size = kinks.sizes(w, xp)
        gone = (grouping.sum(xp.abs(w), xp) <= 0) & (size > 0)
        groups = spread(gone, grouping, w, xp)
    return Zeros(elements, groups)


def spread(per_group: Array, grouping: Grouping, w: Array, xp: Backend) -> Array:
    """A boolean per group at each element of it."""
    ones = xp.where(per_group, xp.full((), 1.0, w), xp.full((), 0.0, w))
    return grouping.spread(ones, w, xp) > 0


def least_norm(v: Array, zeros: Zeros, kinks: Kinks, xp: Backend) -> Array:
    """The element of v + ∂Ω(0) of least norm where there are zeros, v elsewhere.

    Of Ω only the kinks count: v has the gradient of all that is smooth. At a zero element it is
    sign(v)(|v| − λ)_+; at a zero group that, t, shrunk to (1 − λ_g/‖t_g‖)_+ t_g.
    """
    found = v
    if zeros.elements is not None:
        found = xp.where(zeros.elements, soft_threshold(v, kinks.element, xp), v)
    if zeros.groups is not None:
        grouping, size = kinks.sizes(v, xp)
        size = size * xp.full((), 1.0, v)
        left = norms_of(found, grouping, xp).left(size, xp)
        found = xp.where(zeros.groups, found * grouping.spread(left, v, xp), found)
    return found
