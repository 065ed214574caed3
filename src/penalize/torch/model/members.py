"""The members of a group that spans parameters: which part of a weight is which unit's."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from penalize.errors import GroupsError
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
        inner = [":"] * len(self.shape)
        inner[self.axis] = self._index()
        return f"{self.name}[{', '.join(inner)}]"

    def _index(self) -> str:
        """The positions of the i-th unit, as they would be written."""
        if self.positions is None:
            each = self.shape[self.axis] // self.units
            return "i" if each == 1 else f"{each}i:{each}i+{each}"
        first, step = self.positions[0], self.positions[-1] - self.positions[0]
        start, apart = int(first[0]), int(step[0]) // max(self.units - 1, 1)
        if len(first) == 1:
            runs = torch.arange(self.units)[:, None] * apart + start
            if apart == 1 and torch.equal(runs, self.positions):
                return f"i+{start}" if start else "i"
        return "…"

    def data(self) -> list[Any]:
        """It as plain data, for a state."""
        positions = None if self.positions is None else self.positions.tolist()
        return [self.name, self.axis, self.units, positions]


def member(group: str, parameter: Parameter, binding: Binding, spec: Axis) -> Member:
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
