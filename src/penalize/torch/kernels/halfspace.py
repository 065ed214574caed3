"""Half-space steps of weights on the CPU: a kernel before the update, and one or two after it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from penalize.halfspace import Memory
from penalize.torch.kernels import halves
from penalize.torch.kernels.compiled import layout_of, routine_for
from penalize.torch.kernels.cpu import Buffers
from penalize.torch.kernels.halfsteps import Arrays, Begun, HalfSteps
from penalize.torch.kernels.jobs import Job, Note, Offer
from penalize.torch.kernels.launch import Launcher, are_in_memory
from penalize.torch.kernels.looks import Looks
from penalize.torch.kernels.printer import printed
from penalize.torch.kernels.routines import Routine
from penalize.torch.kernels.work import Work


@dataclass
class CompiledHalves(HalfSteps):
    """Weights of one form and type, by one kernel for each part of a step."""

    path = "compiled"

    routines: dict[str, Routine]
    """By the part of a step."""

    buffers: Buffers
    why: str = ""

    @classmethod
    def offer(cls, work: Work, buffers: Buffers) -> Offer | str:
        if work.w.device.type != "cpu":
            return Note("there are kernels for half-space steps on the CPU only")
        if not (work.w.is_contiguous() and work.beside.is_contiguous()):
            return Note("it does not lie in memory element by element")
        layout = layout_of(work.regularizer, work.w.ndim)
        tasks = halves.FLAT if layout is not None and layout.layout == "flat" else halves.GROUPED
        routines: dict[str, Routine] = {}
        for task in tasks:
            found = routine_for(layout, work, task)
            if isinstance(found, str):
                return Note(found)
            routines[task], note = found

        def make(numbers: Sequence[int], works: Sequence[Work]) -> Iterator[Job]:
            found = [layout_of(each.regularizer, each.w.ndim) for each in works]
            known = [each for each in found if each is not None]
            shapes = [of.shape_of(each.w) for of, each in zip(known, works, strict=True)]
            sign, is_flat = cast(float, work.key), tasks is halves.FLAT
            yield cls(numbers, known, shapes, sign, work.average, is_flat, routines, buffers, note)

        return Offer((cls, *routines.values(), *work.kind), make)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._launcher = Launcher(self.routines["before"], self.layouts, self.shapes)
        self._looks: Looks | None = None
        self._rooms: dict[str, tuple[Tensor, list[Tensor]]] = {}

    def fits(self, ws: list[Tensor], besides: list[Tensor]) -> bool:
        return are_in_memory(ws) and are_in_memory(besides)

    def run(self, task: str, arrays: Arrays, memory: Memory) -> Tensor:
        known = [getattr(memory, name) for name in halves.REMEMBERED]
        table = torch.stack([torch.full_like(known[0], self.sign), *known], dim=1).double()
        numbers = self._launcher.numbers_of_each(table)
        values = self._launcher.run(self.routines[task], arrays, numbers)
        return self._launcher.of_weights(values).to(known[0].dtype)

    def rooms(
        self, ws: Sequence[Tensor], means: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Any]]:
        first = self.routines["before"]
        again = len(printed(first).outline.again)
        groups = [height if first.layout == "rows" else length for height, length in self.shapes]
        byte = torch.empty(0, dtype=torch.uint8, device="cpu")
        counts = [height * length for height, length in self.shapes]
        if self._looks is None:  # with these it was decided, and it is as long as they look so
            self._looks = Looks(ws)
        pasts = self._room("pasts", counts, byte if self.is_flat else ws[0].detach())
        return pasts, self._room("sums", [again * count for count in groups], means[0])

    def opened_again(self, ws: Sequence[Tensor], begun: Begun) -> Sequence[Tensor]:
        # An optimizer may have put something else in the place of a weight's data.
        if self._looks is not None and self._looks.are_of(ws) and are_in_memory(ws):
            return ws
        each = zip(ws, begun.kinds, begun.means, strict=True)
        return [_again(w, kind, mean) for w, kind, mean in each]

    def _room(self, name: str, counts: list[int], like: Tensor) -> list[Tensor]:
        # The number of a weight, as no other job of the router has it.
        room = self.buffers.flat(sum(counts), like, (name, self.numbers[0]))
        held, parts = self._rooms.get(name, (None, []))
        if held is None or held.data_ptr() != room.data_ptr():
            parts = list(torch.split(room, counts))
            self._rooms[name] = room, parts
        return parts


def _again(w: Tensor, kind: torch.dtype, mean: Tensor) -> Tensor:
    """A weight, or a copy of the type that it was of, lying in memory as it did."""
    is_same = w.dtype == kind and w.shape == mean.shape and w.device == mean.device
    if is_same and w.is_contiguous() and not w.is_neg() and w.data_ptr():
        return w
    found = w.detach().to(mean.device, kind).expand(mean.shape)
    return found.clone(memory_format=torch.contiguous_format)
