"""The members of a group that spans parameters: which part of a weight is which unit's."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from penalize.errors import GroupsError, ModelError
from penalize.parameters import Parameter
from penalize.regularizers.grouping import Blocks, normalise, resolve
from penalize.regularizers.place import Place
from penalize.torch.model.bindings import Binding
from penalize.torch.model.sharding import gathered_whole, shard_of

Axis = Any
"""``"outputs"``, ``"inputs"``, an axis, :func:`~penalize.blocks` of one, or a pair of one of the
first three and of positions along it: one for each unit, or a list of as many for each."""


@dataclass(frozen=True, eq=False)
class Member:
    """What of one weight is in the matrix: the indices of one axis, shared out among the units.

    Args:
        name: of the weight.
        binding: how it is reached.
        axis: the one along which units lie.
        positions: units × how many indices each has; None where these are all, in their order.
        shape: of the weight.
        units: how many there are.
    """

    name: str
    binding: Binding
    axis: int
    positions: Tensor | None
    shape: tuple[int, ...]
    units: int

    @property
    def width(self) -> int:
        """How many elements a unit has in it."""
        length = self.shape[self.axis] if self.positions is None else self.positions.numel()
        return length // self.units * (math.prod(self.shape) // self.shape[self.axis])

    @property
    def is_all(self) -> bool:
        """Whether every element is one of a unit's."""
        return self.positions is None or self.positions.numel() == self.shape[self.axis]

    def rows(self, x: Tensor) -> Tensor:
        """Units × elements of what is laid out as the weight."""
        if tuple(x.shape) != self.shape:
            raise ModelError(
                f"{self.name!r}, which is in a group that spans parameters, has the shape "
                f"{tuple(x.shape)}, and had {self.shape} when it was planned",
                "detach(), and plan the model as it is now",
            )
        x = gathered_whole(x).movedim(self.axis, 0)
        if self.positions is not None:
            x = x.index_select(0, self.positions.reshape(-1).to(x.device))
        return x.reshape(self.units, -1)

    def put(self, rows: Tensor, into: Tensor) -> Tensor:
        """What is laid out as the weight, with these rows for those that it has."""
        order = [self.axis, *(d for d in range(len(self.shape)) if d != self.axis)]
        rest = [self.shape[d] for d in order[1:]]
        found = rows.to(into.device, into.dtype).reshape(-1, *rest)
        if self.positions is not None:
            whole = gathered_whole(into).movedim(self.axis, 0)
            index = self.positions.reshape(-1).to(found.device)
            found = whole.index_copy(0, index, found)
        return shard_of(found.movedim(0, self.axis), into)

    def __str__(self) -> str:
        return in_words(self.name, len(self.shape), self.axis, self.index())

    def index(self) -> Tensor:
        """Units × how many indices of the axis each has."""
        if self.positions is not None:
            return self.positions
        return torch.arange(self.shape[self.axis]).reshape(self.units, -1)

    def data(self) -> list[Any]:
        """Plain data of it, for a state."""
        positions = None if self.positions is None else self.positions.tolist()
        return [self.name, self.axis, self.units, positions]


def member_of(group: str, parameter: Parameter, binding: Binding, spec: Axis) -> Member:
    """What a group has of a weight.

    Raises:
        GroupsError: it is no axis, or none of this weight, or the positions do not fit.
        ModelError: the weight is lazy, and has no values yet.
    """
    place = Place((f"{parameter.name} in the group {group}",), binding.shape(), parameter.layout)
    binding.read()  # refuses what is lazy
    shape = place.shape or ()
    word, positions = spec, None
    if isinstance(spec, tuple | list) and len(spec) == 2:
        word, positions = spec
    groups = normalise(word)
    if not isinstance(groups, str | int | Blocks):
        raise GroupsError(spec, "units lie along one axis", _INSTEAD, str(place))
    groups = resolve(groups, place)
    if isinstance(groups, Blocks):
        assert isinstance(groups.axis, int)  # a word is resolved
        axis, units, index = groups.axis % len(shape), groups.count, None
    else:
        assert isinstance(groups, int)
        axis = groups % len(shape)
        index = None if positions is None else _index(positions, shape[axis], spec, str(place))
        units = shape[axis] if index is None else index.shape[0]
    return Member(parameter.name, binding, axis, index, shape, units)


_INSTEAD = (
    'write "outputs", "inputs", an axis, blocks("inputs", 16), or an axis and positions along it: '
    '("outputs", range(0, 16)), or (0, [[0, 16], [1, 17]]) with two for each of two units'
)


def _index(positions: Any, length: int, spec: Axis, where: str) -> Tensor:
    """Units × how many positions each has."""
    try:
        each = [[operator.index(i)] if not isinstance(i, Iterable) else [*i] for i in positions]
        rows = [[operator.index(i) for i in row] for row in each]
    except TypeError:
        raise GroupsError(spec, "these are no positions along an axis", _INSTEAD, where) from None
    flat = [i for row in rows for i in row]
    if not flat or len({*map(len, rows)}) > 1:
        raise GroupsError(
            spec, "units have different numbers of positions", "give each as many", where
        )
    if len({*flat}) < len(flat):
        raise GroupsError(spec, "a position stands there twice", "name each once", where)
    if not 0 <= min(flat) <= max(flat) < length:
        found = f"positions go from {min(flat)} to {max(flat)}, and the axis has {length}"
        raise GroupsError(spec, found, f"expected positions from 0 to {length - 1}", where)
    return torch.tensor(rows)


def in_words(name: str, ndim: int, axis: int, index: Tensor) -> str:
    """What the i-th unit has of a weight, as it would be written: ``0.weight[i, :]``.

    Args:
        name: of the weight.
        ndim: how many axes it has.
        axis: the one along which units lie.
        index: units × how many indices of it each has.
    """
    units, each = index.shape
    starts, apart = index[0].tolist(), int(index[-1, 0] - index[0, 0]) // max(units - 1, 1)
    inner = [":"] * ndim
    runs = index[0] + apart * torch.arange(units)[:, None]
    is_slice = apart == each and starts == [*range(starts[0], starts[0] + each)]
    if not torch.equal(runs, index) or (each > _WRITTEN and not is_slice):
        inner[axis] = "…"
    elif each == 1:
        inner[axis] = _plus(apart, starts[0])
    elif is_slice:
        inner[axis] = f"{_plus(each, starts[0])}:{_plus(each, starts[0] + each)}"
    else:
        inner[axis] = f"[{', '.join(_plus(apart, start) for start in starts)}]"
    return f"{name}[{', '.join(inner)}]"


def listed(members: Sequence[object]) -> str:
    """Members in a table: the first of them, where there are many."""
    shown = members if len(members) <= _SHOWN else members[: _SHOWN - 1]
    more = len(members) - len(shown)
    return ", ".join([*map(str, shown), *([f"and {more} more"] if more else [])])


_SHOWN = 4
"""So many members are written out; of more one less, and how many there are."""

_WRITTEN = 4
"""So many indices of a unit are written out, where they are no slice."""


def _plus(factor: int, start: int) -> str:
    """``4i+1``."""
    return f"{'' if factor == 1 else factor}i{f'+{start}' if start else ''}"
