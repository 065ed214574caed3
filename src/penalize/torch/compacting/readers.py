"""Readers: where a layer reads units with weights, and what a constant one leaves behind there."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from penalize.torch.compacting.units import Units
from penalize.torch.compacting.values import Facts, Piece

LIVES = "it changes with the input"


@dataclass(frozen=True)
class Reader:
    """A linear map that reads units.

    Args:
        weight: the name of its weight.
        units: the unit of each of its inputs.
        effect: what a one everywhere in an input adds to each output: outputs × inputs.
        silent: the inputs whose weights are all 0.
        constant: the constant that each input is; NaN where it is none.
        bias: what a constant can be put into instead; None where the map has no bias.
        spread: why a constant that is not 0 cannot be put there; empty if it can.
    """

    weight: str
    units: Tensor
    effect: Tensor
    silent: Tensor
    constant: Tensor
    bias: Piece | None
    spread: str = ""

    def why_not_gone(self, i: int) -> str:
        """Why the i-th input has to stay, as far as this reader is concerned."""
        c = float(self.constant[i])
        if self.silent[i] or c == 0:
            return ""
        if math.isnan(c):
            return LIVES
        if self.spread:
            return f"it is a constant, not 0, and {self.weight!r} {self.spread}"
        if self.bias is None:
            return (
                f"it is a constant, not 0, and {self.weight!r} has no bias beside it to hold that"
            )
        return ""


@dataclass
class Wiring:
    """What a traced model does with its units."""

    units: Units
    readers: list[Reader] = field(default_factory=list)
    written: dict[str, Tensor] = field(default_factory=dict)
    """Parameters that make units → these."""
    dead: list[Tensor] = field(default_factory=list)
    """Units whose incoming weights are all 0, at one place at least."""
    reshaped: list[Tensor] = field(default_factory=list)
    """Units whose number may stand in the code of the model."""

    def writes(self, origin: Piece, units: Tensor, dead: Tensor) -> None:
        """Note that a parameter, or a part of it, makes these units, some with zeros alone."""
        before = self.written.get(origin.name, units[:0])
        self.written[origin.name] = torch.tensor(sorted({*before.tolist(), *units.tolist()}))
        self.dead.append(units[dead])

    def in_code(self) -> set[int]:
        """The units whose number may stand in the code of the model."""
        roots = [self.units.roots(ids).reshape(-1).tolist() for ids in self.reshaped]
        return {root for each in roots for root in each if root >= 0}

    def keep(self, values: Iterable[Facts], why: str) -> None:
        """Let nothing go that is in these."""
        values = list(values)
        for value in values:
            self.units.keep(value.units, why)
        self.keep_parameters(values, why)

    def keep_parameters(self, values: Iterable[Facts], why: str) -> None:
        """Let no dimension go of the parameters among these."""
        for value in values:
            if value.origin is not None:
                for d in range(self.units.weights[value.origin.name].ndim):
                    self.units.keep(self.units.of(value.origin.name, d), why)


def constants_along(value: Facts, dimension: int) -> Tensor:
    """The constant of each index of a dimension; NaN where it is none, or not one everywhere."""
    known = value.known.movedim(dimension, 0).flatten(1)
    constant = value.constant.double().movedim(dimension, 0).flatten(1)
    # What PyTorch computes for equal numbers differs in the last bit where its loop has a rest.
    one = known.all(1) & torch.isclose(constant, constant[:, :1], rtol=1e-13, atol=0.0).all(1)
    return torch.where(one, constant[:, 0], torch.nan)
