"""Half-space steps of weights that go together: what of them is the same however it is computed."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from penalize.backends import torch as xp
from penalize.halfspace import SCALARS, Memory, added, counted, noted
from penalize.regularizers.least_norm import has_groups
from penalize.torch.kernels.jobs import Job
from penalize.torch.kernels.launch import Layout

Arrays = dict[str, Any]
"""By the name of a kind of array, one for each weight."""


class Kept(NamedTuple):
    """What is remembered of weights that go together, between steps."""

    means: list[Tensor]
    """Averages, each lying in memory element by element as its weight, or a shard of it, would."""

    numbers: Memory
    """What is beside the averages: one number for each weight."""

    @classmethod
    def of(cls, memories: Sequence[Memory], shapes: Sequence[torch.Size]) -> Kept:
        """The same as one of all."""
        pairs = zip(memories, shapes, strict=True)
        means = [each.mean.expand(shape).contiguous() for each, shape in pairs]
        fields = [torch.stack([getattr(each, name) for each in memories]) for name in SCALARS]
        return cls(means, Memory(torch.zeros_like(fields[0]), *fields))

    def each(self) -> list[Memory]:
        """The memory of each weight."""
        columns = [getattr(self.numbers, name).unbind() for name in SCALARS]
        return [Memory(*one) for one in zip(self.means, *columns, strict=True)]


class Begun(NamedTuple):
    """A step of some weights between its two hooks."""

    pasts: list[Tensor]
    """What is kept of the weights as they were; see :mod:`penalize.torch.kernels.halves`."""

    sums: list[Any]
    """Of their groups; the same."""

    means: list[Tensor]
    """Averages with this step in them."""

    kinds: list[torch.dtype]
    """Of the weights."""

    mass: Tensor
    """As it was: one number for each."""

    memory: Memory
    """What else is remembered of them, if the step is taken; the same."""


@dataclass
class HalfSteps(Job):
    """Weights of one type that are stepped in one go."""

    layouts: Sequence[Layout]
    shapes: Sequence[tuple[int, int]]
    """How many rows they have, and of what length."""

    sign: float
    """−1 where what is maximized is the loss, so that ``.grad`` has the other sign."""

    average: float
    is_flat: bool

    def __post_init__(self) -> None:
        on = [has_groups(each.regularizer.kinks()) for each in self.layouts]
        self._off, self._some_are_off = ~torch.tensor(on, device="cpu"), not all(on)

    @abstractmethod
    def run(self, task: str, arrays: Arrays, memory: Memory) -> Tensor:
        """The sums of each weight that a part of a step gives, which writes to arrays."""

    @abstractmethod
    def rooms(
        self, ws: Sequence[Tensor], means: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Any]]:
        """Room for what is kept of weights, and for the sums over their groups."""

    def opened(self, xs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Weights, or gradients, as they are computed with, and written to."""
        return xs

    @abstractmethod
    def opened_again(self, ws: Sequence[Tensor], begun: Begun) -> Sequence[Tensor]:
        """The weights after the update, lying as they did before it: perhaps copies."""

    def closed(self, w: Tensor, found: Tensor) -> None:
        """w ← what was found in its place."""
        if found is not w:
            w.copy_(found)

    def before(
        self,
        ws: Sequence[Tensor],
        gradients: Sequence[Tensor],
        remembered: Kept,
        means: list[Tensor],
    ) -> Begun:
        """gradient ← what the optimizer is to be given, for each.

        Args:
            ws: the weights.
            gradients: of the data.
            remembered: of the last step. Nothing is written to it.
            means: where the averages go.
        """
        # Averages are computed where the weights are passed over: here are the numbers beside them.
        memory = remembered.numbers
        here = self.opened(ws)
        arrays: Arrays = {"w": here, "g": self.opened(gradients), "next": means}
        arrays["mean"] = remembered.means
        arrays["past"], arrays["sums"] = pasts, sums = self.rooms(here, means)
        mass = memory.mass
        found = self.run("before", arrays, memory)
        memory = noted(memory.mean, memory, self.average, xp)
        if not self.is_flat:
            memory = self._added("pulled", found[:, 0], memory)
        return Begun(pasts, sums, means, [w.dtype for w in here], mass, memory)

    def after(self, ws: Sequence[Tensor], begun: Begun) -> Kept:
        """w ← w with its zeros, for each; and what is then remembered of them."""
        here = self.opened_again(ws, begun)
        arrays: Arrays = {"w": here, "next": begun.means, "past": begun.pasts, "sums": begun.sums}
        memory, mass = begun.memory, begun.mass
        if not self.is_flat:
            moved = self.run("moved", arrays, memory._replace(mass=mass))[:, 0]
            memory = self._added("moved", moved, memory)
        zeros, left = self.run("after", arrays, memory._replace(mass=mass)).unbind(1)
        memory = counted(zeros, left, memory, self.average)
        if here is not ws:
            for w, x in zip(ws, here, strict=True):
                self.closed(w, x)
        return Kept(begun.means, memory)

    def _added(self, name: str, new: Tensor, memory: Memory) -> Memory:
        if self._some_are_off:  # as at a step of a schedule: it is like what is not finite
            new = new.masked_fill(self._off.to(new.device), math.inf)
        return added(name, new, memory, self.average, xp)
