"""How the elements of an array fall into groups: along axes, in blocks of one, or by a partition.

Each kind reduces an array to one number per group (:meth:`sum`), and gives every element its
group's number back (:meth:`spread`). A penalty that has to sort a group sees the groups as the rows
of a matrix (:meth:`rows`).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

from penalize.backends import Array, Backend
from penalize.errors import GroupsError
from penalize.regularizers.place import Place

WORDS = ("outputs", "inputs")


@dataclass(frozen=True)
class Blocks:
    """See :func:`blocks`."""

    axis: str | int
    count: int

    def __repr__(self) -> str:
        return f"blocks({self.axis!r}, {self.count!r})"


def blocks(axis: str | int, count: int) -> Blocks:
    """Groups of equally many neighbours along one axis, for ``groups=``: one per attention head.

    ``GroupLasso(1e-3, groups=blocks("outputs", 12))`` on the projection of a query, key or value
    has one group per head; ``blocks("inputs", 12)`` on the one that follows has those that read it.
    Where queries, keys and values lie in one kernel, ``blocks("outputs", 36)``.

    Args:
        axis: ``"outputs"`` or ``"inputs"``, resolved by the framework's layout in a plan; or an
            axis.
        count: how many groups; it divides the length of the axis.

    Raises:
        GroupsError: the axis is neither, or the count is no whole number of at least 1.
    """
    groups = Blocks(axis, count)
    if isinstance(axis, str) and axis not in WORDS:
        raise GroupsError(groups, "there is no such word", f"write one of {WORDS}, or an axis")
    try:
        groups = Blocks(
            axis if isinstance(axis, str) else operator.index(axis), operator.index(count)
        )
    except TypeError:
        groups = replace(groups, count=0)
    if groups.count < 1:
        raise GroupsError(
            Blocks(axis, count),
            "these are no axis and no number of blocks",
            'write blocks("outputs", 12) or blocks(0, 12)',
        )
    return groups


Groups = str | int | Blocks | tuple[int, ...] | tuple[tuple[int, ...], ...]
"""A word, an axis, blocks of one, axes, or a partition of the flat indices."""


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

    def rows(self, x: Array, fill: float, xp: Backend) -> Array:
        """The groups as rows of a matrix with at least one column, short ones filled up."""

    def per_group(self, column: Array, x: Array, xp: Backend) -> Array:
        """A column with one number per row of :meth:`rows`, as :meth:`spread` takes it."""


@dataclass(frozen=True)
class Axes:
    """One group per index along some axes; every other axis lies within the groups."""

    axes: tuple[int, ...]

    def within(self, ndim: int) -> list[int]:
        index = {axis % ndim for axis in self.axes}
        return [axis for axis in range(ndim) if axis not in index]

    def sum(self, x: Array, xp: Backend) -> Array:
        return xp.sum(x, self.within(len(x.shape)))

    def total(self, per_group: Array, xp: Backend) -> Array:
        ndim = len(per_group.shape)
        index = [axis for axis in range(ndim) if axis not in self.within(ndim)]
        return xp.reshape(xp.sum(per_group, index), ())

    def spread(self, per_group: Array, w: Array, xp: Backend) -> Array:
        return per_group

    def root_sizes(self, w: Array, xp: Backend) -> Any:
        known = getattr(xp, "root_size", None)
        if known is not None:  # a kernel for rows of any length reads it
            return known
        shape = xp.shape(w)
        return math.sqrt(math.prod([shape[axis] for axis in self.within(len(shape))]) or 1)

    def rows(self, x: Array, fill: float, xp: Backend) -> Array:
        shape, within = tuple(x.shape), self.within(len(x.shape))
        index = [axis for axis in range(len(shape)) if axis not in within]
        count, length = (math.prod([shape[axis] for axis in axes]) for axes in (index, within))
        if not length:
            return xp.full((count, 1), fill, x)
        return xp.reshape(xp.transpose(x, [*index, *within]), (count, length))

    def per_group(self, column: Array, x: Array, xp: Backend) -> Array:
        within = self.within(len(x.shape))
        shape = [1 if axis in within else size for axis, size in enumerate(x.shape)]
        return xp.reshape(column, shape)


@dataclass(frozen=True)
class Split:
    """One group per block of one axis: an array with that axis in two, the first the blocks'."""

    axis: int
    count: int

    def _view(self, x: Array, xp: Backend) -> Array:
        shape = tuple(x.shape)
        axis = self.axis % len(shape)
        length = shape[axis] // self.count
        return xp.reshape(x, (*shape[:axis], self.count, length, *shape[axis + 1 :]))

    def _axes(self, ndim: int) -> Axes:
        return Axes((self.axis % ndim,))

    def sum(self, x: Array, xp: Backend) -> Array:
        return self._axes(len(x.shape)).sum(self._view(x, xp), xp)

    def total(self, per_group: Array, xp: Backend) -> Array:
        return self._axes(len(per_group.shape) - 1).total(per_group, xp)

    def spread(self, per_group: Array, w: Array, xp: Backend) -> Array:
        if not len(getattr(per_group, "shape", ())):
            return per_group  # one number for all of them
        like = self._view(w, xp)
        return xp.reshape(xp.broadcast(per_group, tuple(like.shape)), tuple(w.shape))

    def root_sizes(self, w: Array, xp: Backend) -> Any:
        return math.sqrt(math.prod(xp.shape(w)) // self.count or 1)

    def rows(self, x: Array, fill: float, xp: Backend) -> Array:
        return self._axes(len(x.shape)).rows(self._view(x, xp), fill, xp)

    def per_group(self, column: Array, x: Array, xp: Backend) -> Array:
        return self._axes(len(x.shape)).per_group(column, self._view(x, xp), xp)


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
        if not len(getattr(per_group, "shape", ())):
            return per_group
        return xp.reshape(xp.take(per_group, self._ids()), tuple(w.shape))

    def root_sizes(self, w: Array, xp: Backend) -> Any:
        return xp.constant([math.sqrt(len(group) or 1) for group in self.groups], w)

    def rows(self, x: Array, fill: float, xp: Backend) -> Array:
        size = sum(map(len, self.groups))
        longest = max(1, *map(len, self.groups))
        ids = [i for group in self.groups for i in (*group, *[size] * (longest - len(group)))]
        filled = xp.concat([xp.reshape(x, (size,)), xp.full((1,), fill, x)], 0)
        return xp.reshape(xp.pick(filled, ids), (len(self.groups), longest))

    def per_group(self, column: Array, x: Array, xp: Backend) -> Array:
        return xp.reshape(column, (len(self.groups),))


def normalise(groups: Any) -> Groups:
    """Words, axes and partitions in one hashable form. Raises :class:`GroupsError` otherwise."""
    if isinstance(groups, str):
        if groups in WORDS:
            return groups
        raise GroupsError(groups, "there is no such word", f"write one of {WORDS}, or an axis")
    if isinstance(groups, Blocks):
        return groups
    try:
        if isinstance(groups, Mapping) and groups.keys() == {"axis", "count"}:  # a configuration
            return blocks(**groups)
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


def resolve(groups: Groups, place: Place) -> Groups:
    """Groups of one parameter: a word becomes its axis, and the shape is checked."""
    word = groups.axis if isinstance(groups, Blocks) else groups
    if isinstance(word, str):
        axis = place.axes.get(word)
        if axis is None:
            raise GroupsError(
                groups,
                f"no single axis holds the {word} here",
                "name an axis, axes or a partition instead",
                str(place),
            )
        groups = replace(groups, axis=axis) if isinstance(groups, Blocks) else axis
    if place.shape is not None:
        grouping_of(groups, place.shape, str(place))
    return groups


def grouping_of(groups: Groups, shape: Sequence[int], where: str = "") -> Grouping:
    """The groups of an array of this shape. Raises :class:`GroupsError` if they do not fit."""
    shape = tuple(shape)
    word = groups.axis if isinstance(groups, Blocks) else groups
    if isinstance(word, str):
        raise GroupsError(
            groups,
            "a bare array has no inputs and outputs",
            "name an axis (groups=0), or resolve it in a plan, which knows the layout",
            where,
        )
    if isinstance(groups, Blocks):
        return _split_of(groups, shape, where)
    if isinstance(groups, tuple) and groups and isinstance(groups[0], tuple):
        partition = Partition(groups)
        count, size = sum(map(len, partition.groups)), math.prod(shape)
        if count != size:
            found = f"it lists {count} indices, and the shape {shape} has {size}"
            raise GroupsError(groups, found, "list every flat index once", where)
        return partition
    axes = (groups,) if isinstance(groups, int) else cast(tuple[int, ...], groups)
    _check_axes(groups, axes, shape, where)
    return Axes(axes)


def _check_axes(groups: Groups, axes: Iterable[int], shape: tuple[int, ...], where: str) -> None:
    ndim = len(shape)
    if not all(-ndim <= axis < ndim for axis in axes):
        expected = f"expected axes from {-ndim} to {ndim - 1}" if ndim else "a scalar has no axes"
        raise GroupsError(groups, f"the shape {shape} has no such axis", expected, where)


def _split_of(groups: Blocks, shape: tuple[int, ...], where: str) -> Split:
    axis = cast(int, groups.axis)
    _check_axes(groups, [axis], shape, where)
    if shape[axis] % groups.count:
        raise GroupsError(
            groups,
            f"axis {axis} of the shape {shape} does not fall into {groups.count} equal blocks",
            "name a number that divides it",
            where,
        )
    return Split(axis, groups.count)


def leading_axes(groups: Groups, ndim: int) -> int | None:
    """How many leading axes index the groups; None where other axes do, or none."""
    index = _indexing(groups, ndim)
    return len(index) if index == set(range(len(index))) else None


def trailing_axes(groups: Groups, ndim: int) -> int | None:
    """How many trailing axes index the groups; None where other axes do, or none."""
    index = _indexing(groups, ndim)
    return len(index) if index == set(range(ndim - len(index), ndim)) else None


def _indexing(groups: Groups, ndim: int) -> set[int]:
    axes = (groups,) if isinstance(groups, int) else groups
    if not isinstance(axes, tuple) or (axes and isinstance(axes[0], tuple)):
        return {-1}  # no axes do
    return {axis % ndim for axis in cast(tuple[int, ...], axes)}


def as_data(groups: Any) -> Any:
    """Groups as plain data, which :func:`normalise` reads back."""
    return vars(groups) if isinstance(groups, Blocks) else groups
