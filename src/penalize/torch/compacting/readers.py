"""Readers: where a layer reads units with weights, and what a constant one leaves behind there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from penalize.torch.compacting.units import Units, distinct
from penalize.torch.compacting.values import Facts, Piece

LIVES = "it changes with the input"


@dataclass(frozen=True)
class Reader:
    """A linear map that reads units.

    Args:
        weight: the name of its weight.
        units: the unit of each of its inputs.
        values: the weights: outputs × inputs × kernel.
        silent: the inputs whose weights are all 0.
        constant: the constant that each input is; NaN where it is none.
        bias: what a constant can be put into instead; None where the map has no bias.
        spread: why a constant that is not 0 cannot be put there; empty if it can.
    """

    weight: str
    units: Tensor
    values: Tensor
    silent: Tensor
    constant: Tensor
    bias: Piece | None
    spread: str = ""

    def added(self, moved: Tensor) -> Tensor:
        """What some of its inputs, which are constants, add to each output."""
        w = self.values[:, moved].double()
        return (w.flatten(2).sum(2) if w.ndim > 2 else w) @ self.constant[moved]

    def why_not_gone(self, i: int) -> str:
        """Why the i-th input has to stay, as far as this reader is concerned."""
        c = float(self.constant[i])
        if self.silent[i]:
            return ""
        if c == 0:
            finite = bool(self.values[:, i].isfinite().all())
            return "" if finite else f"{self.weight!r} has a weight for it that is not finite"
        if math.isnan(c):
            return LIVES
        if self.spread:
            return f"it is a constant, not 0, and {self.weight!r} {self.spread}"
        if self.bias is None:
            return (
                f"it is a constant, not 0, and {self.weight!r} has no bias beside it to hold that"
            )
        return ""


class Move(NamedTuple):
    """An operator that moves units.

    Args:
        units: of what it reads, and of what it makes.
        is_sized: whether its arguments may be numbers of units.
        owner: the module in whose code it stands.
    """

    units: Sequence[Tensor]
    is_sized: bool
    owner: str


@dataclass
class Wiring:
    """What a traced model does with its units."""

    units: Units
    readers: list[Reader] = field(default_factory=list)
    written: dict[str, Tensor] = field(default_factory=dict)
    """Parameters that make units → these."""
    dead: list[Tensor] = field(default_factory=list)
    """Units whose incoming weights are all 0, at one place at least."""
    moves: list[Move] = field(default_factory=list)
    """Operators that move units, or read them, in their order."""
    sizes: list[dict[str, set[int]]] = field(default_factory=list)
    """Of each of the inputs, the sizes of what the moves in the code of a module read and make."""
    balanced: list[list[Tensor]] = field(default_factory=list)
    """Units of several layers that have one number of them, as all layers of an LSTM."""
    because: dict[int, str] = field(default_factory=dict)
    """Why units change with the input, where more can be said than that."""
    sized: set[str] = field(default_factory=set)
    """Parameters that are moved by operators whose arguments may be numbers of units."""

    def writes(self, origin: Piece, units: Tensor, dead: Tensor) -> None:
        """Note that a parameter, or a part of it, makes these units, some with zeros alone."""
        before = self.written.get(origin.name, units[:0])
        self.written[origin.name] = torch.tensor(sorted({*before.tolist(), *units.tolist()}))
        self.dead.append(units[dead])

    def note(self, ids: Tensor, why: str) -> None:
        """Say why these change with the input, should they have to stay for that."""
        for each in distinct(ids):
            self.because.setdefault(each, why)

    def in_code(self) -> set[int]:
        """The units whose number may stand in the code of the model."""
        return self.units.among(
            [each for move in self.moves if move.is_sized for each in move.units]
        )

    def unheard(self) -> set[int]:
        """The units that are read, and of which all weights that read them are 0."""
        silent: dict[int, bool] = {}
        for reader in self.readers:
            roots = self.units.roots(reader.units).tolist()
            for root, is_silent in zip(roots, reader.silent.tolist(), strict=True):
                silent[root] = silent.get(root, True) and is_silent
        return {root for root, is_silent in silent.items() if is_silent and root >= 0}

    def keep(self, values: Iterable[Facts], why: str) -> None:
        """Let nothing go that is in these."""
        values = list(values)
        for value in values:
            self.units.keep(value.units, why)
        self.keep_parameters(values, why)

    def keep_parameters(self, values: Iterable[Facts], why: str) -> None:
        """Let no dimension go of the parameters among these."""
        for value in values:
            keep_dimensions(self.units, value.origin, why)


def keep_dimensions(units: Units, origin: Piece | None, why: str, but: int | None = None) -> None:
    """Let no dimension go of a parameter that is used as numbers, but one."""
    if origin is not None:
        units.numeric.add(origin.name)
        for d, size in enumerate(units.weights[origin.name].shape):
            if d != but and size > 1:
                units.keep(units.of(origin.name, d), why)


def _once_but(value: Facts, dimension: int) -> Iterator[Tensor]:
    """What is known of a value, and which constant, once along all other dimensions if alike."""
    parts = [value.known, value.constant.double()]
    for d in range(parts[0].ndim):
        if d != dimension and all(part.stride(d) == 0 for part in parts):
            parts = [part.narrow(d, 0, 1) for part in parts]
    yield from parts


def constants_along(value: Facts, dimension: int) -> Tensor:
    """The constant of each index of a dimension; NaN where it is none, or not one everywhere."""
    known, constant = (
        part.movedim(dimension, 0).reshape(part.shape[dimension], -1)
        for part in _once_but(value, dimension)
    )
    # What PyTorch computes for equal numbers differs in the last bit where its loop has a rest.
    one = known.all(1) & torch.isclose(constant, constant[:, :1], rtol=1e-13, atol=0.0).all(1)
    return torch.where(one, constant[:, 0], torch.nan)
