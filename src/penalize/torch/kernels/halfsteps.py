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

    def opened(self, x: Tensor) -> Tensor:
        """A weight, or a gradient, as it is computed with, and written to."""
        return x

    @abstractmethod
    def opened_again(self, w: Tensor, kind: torch.dtype, mean: Tensor) -> Tensor:
        """A weight after the update, lying as it did before it: perhaps a copy."""

    def closed(self, w: Tensor, found: Tensor) -> None:
        """w ← what was found in its place."""
        if found is not w:
            w.copy_(found)

    def before(
        self,
        ws: Sequence[Tensor],
        gradients: Sequence[Tensor],
        memories: Sequence[Memory],
        means: list[Tensor],
    ) -> Begun:
        """gradient ← what the optimizer is to be given, for each.

        Args:
            ws: the weights.
            gradients: of the data.
            memories: of the last step. Nothing is written to them.
            means: where the averages go.
        """
        fields = [torch.stack([getattr(each, name) for each in memories]) for name in SCALARS]
        # Averages are computed where the weights are passed over: here are the numbers beside them.
        memory = Memory(torch.zeros_like(fields[0]), *fields)
        here = [self.opened(w) for w in ws]
        arrays: Arrays = {"w": here, "g": [self.opened(g) for g in gradients], "next": means}
        pairs = zip(memories, here, strict=True)
        arrays["mean"] = [each.mean.expand(w.shape).contiguous() for each, w in pairs]
        arrays["past"], arrays["sums"] = pasts, sums = self.rooms(here, means)
        mass = memory.mass
        found = self.run("before", arrays, memory)
        memory = noted(memory.mean, memory, self.average, xp)
        if not self.is_flat:
            memory = self._added("pulled", found[:, 0], memory)
        return Begun(pasts, sums, means, [w.dtype for w in here], mass, memory)

    def after(self, ws: Sequence[Tensor], begun: Begun) -> list[Memory]:
        """w ← w with its zeros, for each; and what is then remembered of it."""
        of_each = zip(ws, begun.kinds, begun.means, strict=True)
        here = [self.opened_again(*each) for each in of_each]
        arrays: Arrays = {"w": here, "next": begun.means, "past": begun.pasts, "sums": begun.sums}
        memory, mass = begun.memory, begun.mass
        if not self.is_flat:
            moved = self.run("moved", arrays, memory._replace(mass=mass))[:, 0]
            memory = self._added("moved", moved, memory)
        zeros, left = self.run("after", arrays, memory._replace(mass=mass)).unbind(1)
        memory = counted(zeros, left, memory, self.average)
        for w, x in zip(ws, here, strict=True):
            self.closed(w, x)
        columns = [getattr(memory, name).unbind() for name in SCALARS]
        return [Memory(*each) for each in zip(begun.means, *columns, strict=True)]

    def _added(self, name: str, new: Tensor, memory: Memory) -> Memory:
        if self._some_are_off:  # as at a step of a schedule: it is like what is not finite
            new = new.masked_fill(self._off.to(new.device), math.inf)
        return added(name, new, memory, self.average, xp)
