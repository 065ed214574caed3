"""How the elements of an array fall into groups: along axes, or by an explicit partition.

Both kinds reduce an array to one number per group (:meth:`sum`) and give every element its group's
number back (:meth:`spread`); a group penalty needs nothing else.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from penalize.backends import Array, Backend
from penalize.errors import GroupsError

WORDS = ("outputs", "inputs")

Groups = str | int | tuple[int, ...] | tuple[tuple[int, ...], ...]
"""A word, an axis, axes, or a partition of the flat indices."""


class Grouping(Protocol):
    """Groups of one array."""

    def sum(self, x: Array, xp: Backend) -> Array:
        """Σ over each group."""

    def total(self, per_group: Array, xp: Backend) -> Array:
        """Σ over the groups, a scalar."""

    def spread(self, per_group: Array, w: Array, xp: Backend) -> Array:
        """Each group's number at each of its elements: an array that broadcasts to w."""

    def root_sizes(self, w: Array, xp: Backend) -> Any:
        """√|g|, 1 for an empty group: a number, or an array with one per group."""


@dataclass(frozen=True)
class Axes:
    """One group per index along some axes; every other axis lies within the groups."""

    axes: tuple[int, ...]

    def _within(self, ndim: int) -> list[int]:
        index = {axis % ndim for axis in self.axes}
        return [axis for axis in range(ndim) if axis not in index]

    def sum(self, x: Array, xp: Backend) -> Array:
        return xp.sum(x, self._within(len(x.shape)))

    def total(self, per_group: Array, xp: Backend) -> Array:
        ndim = len(per_group.shape)
        index = [axis for axis in range(ndim) if axis not in self._within(ndim)]
        return xp.reshape(xp.sum(per_group, index), ())

    def spread(self, per_group: Array, w: Array, xp: Backend) -> Array:
        return per_group

    def root_sizes(self, w: Array, xp: Backend) -> Any:
        shape = xp.shape(w)
        return math.sqrt(math.prod([shape[axis] for axis in self._within(len(shape))]) or 1)


@dataclass(frozen=True)
class Partition:
    """Groups as lists of flat (row-major) indices that cover the array once."""

    groups: tuple[tuple[int, ...], ...]

    def _ids(self) -> list[int]:
        ids = [0] * sum(map(len, self.groups))
        for number, group in enumerate(self.groups):
            for index in group:
                ids[index] = number
        return ids

    def sum(self, x: Array, xp: Backend) -> Array:
        return xp.segment_sum(xp.reshape(x, (-1,)), self._ids(), len(self.groups))

    def total(self, per_group: Array, xp: Backend) -> Array:
        return xp.total(per_group)

    def spread(self, per_group: Array, w: Array, xp: Backend) -> Array:
        return xp.reshape(xp.take(per_group, self._ids()), tuple(w.shape))

    def root_sizes(self, w: Array, xp: Backend) -> Any:
        return xp.constant([math.sqrt(len(group) or 1) for group in self.groups], w)


def normalise(groups: Any) -> Groups:
    """Words, axes and partitions in one hashable form. Raises :class:`GroupsError` otherwise."""
    if isinstance(groups, str):
        if groups in WORDS:
            return groups
        raise GroupsError(groups, "there is no such word", f"write one of {WORDS}, or an axis")
    try:
        if isinstance(groups, Iterable):
            items = list(groups)
            if any(isinstance(item, Iterable) for item in items):
                return _partition(groups, items)
            return tuple(map(operator.index, items))
        return operator.index(groups)
    except TypeError:
        raise GroupsError(
            groups,
            f"it is a {type(groups).__name__}",
            f"expected one of {WORDS}, an axis, a tuple of axes, or lists of flat indices such as "
            "[[0, 1], [2, 3, 4]]",
        ) from None


def _partition(groups: Any, items: list[Any]) -> tuple[tuple[int, ...], ...]:
    partition = tuple(tuple(map(operator.index, group)) for group in items)
    flat = sorted(index for group in partition for index in group)
    if flat != list(range(len(flat))):
        raise GroupsError(
            groups,
            "the groups must hold each flat index from 0 to the last exactly once",
            "list every index of the array in one group; a group of its own for each that stands "
            "alone",
        )
    return partition


def resolve(
    groups: Groups, axes: Mapping[str, int | None], shape: tuple[int, ...] | None, where: str
) -> Groups:
    """Groups of one parameter: a word becomes its axis, and the shape is checked."""
    if isinstance(groups, str):
        axis = axes.get(groups)
        if axis is None:
            raise GroupsError(
                groups,
                f"no single axis holds the {groups} here",
                "name an axis, axes or a partition instead",
                where,
            )
        groups = axis
    if shape is not None:
        grouping_of(groups, shape, where)
    return groups


def grouping_of(groups: Groups, shape: Sequence[int], where: str = "") -> Grouping:
    """The groups of an array of this shape. Raises :class:`GroupsError` if they do not fit."""
    shape = tuple(shape)
    if isinstance(groups, str):
        raise GroupsError(
            groups,
            "a bare array has no inputs and outputs",
            "name an axis (groups=0), or resolve it in a plan, which knows the layout",
            where,
        )
    if isinstance(groups, tuple) and groups and isinstance(groups[0], tuple):
        partition = Partition(groups)
        count, size = sum(map(len, partition.groups)), math.prod(shape)
        if count != size:
            found = f"it lists {count} indices, and the shape {shape} has {size}"
            raise GroupsError(groups, found, "list every flat index once", where)
        return partition
    axes = (groups,) if isinstance(groups, int) else cast(tuple[int, ...], groups)
    ndim = len(shape)
    if not all(-ndim <= axis < ndim for axis in axes):
        expected = f"expected axes from {-ndim} to {ndim - 1}" if ndim else "a scalar has no axes"
        raise GroupsError(groups, f"the shape {shape} has no such axis", expected, where)
    return Axes(axes)
