"""Small weights on the CPU, copied side by side and treated as one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from penalize.backends import torch as xp
from penalize.steps import Taken
from penalize.torch.kernels.cpu import Buffers, kernels_of, prox_kernel_of
from penalize.torch.kernels.jobs import Job, Offer, Penalizing, cpu_rows_of, why_not_on_cpu
from penalize.torch.kernels.rows import Rows
from penalize.torch.kernels.work import Work

PACK = 2**17
"""How many elements are packed into one buffer."""


@dataclass
class Packed(Penalizing):
    """Small weights of one regularizer, copied side by side and treated as one."""

    path = "packed"

    rows: Rows
    shapes: Sequence[torch.Size]
    like: Tensor
    """Without elements, of their dtype and on their device."""

    buffers: Buffers
    _views: dict[int, tuple[Tensor, list[Tensor]]] = field(default_factory=dict)

    @classmethod
    def offer(cls, work: Work, buffers: Buffers) -> Offer | str:
        why, rows = why_not_on_cpu(work), cpu_rows_of(work)
        if why or rows is None:
            return why
        length = 0 if rows.is_flat else work.w.shape[rows.leading :].numel()
        like = work.w.new_empty(0)

        def make(numbers: Sequence[int], works: Sequence[Work]) -> Iterator[Job]:
            for pack in _packs([each.w.shape for each in works]):
                shapes = [works[i].w.shape for i in pack]
                yield cls([numbers[i] for i in pack], rows, shapes, like, buffers)

        return Offer((cls, rows, length, *work.kind), make)

    def __post_init__(self) -> None:
        wide = self.like.dtype.itemsize >= 4
        self._kernels = kernels_of(self.rows.regularizer, (1,), wide=wide)
        self._prox = prox_kernel_of(self.rows.regularizer, (1,), wide=wide)

    def add(self, ws: list[Tensor], tos: list[Tensor], scale: float) -> None:
        w, weights = self._buffer(0)
        gradient, gradients = self._buffer(1)
        torch._foreach_copy_(weights, ws)
        first, *others = self._kernels
        first.gradient(w, gradient)
        for kernel in others:
            kernel.add_gradient(w, gradient, 1.0, self.buffers)
        if scale != 1:
            gradient.mul_(scale)
        torch._foreach_add_(tos, gradients)

    def value_and_add(self, ws: list[Tensor], tos: list[Tensor], scale: float) -> Tensor:
        self.add(ws, tos, scale)
        w, _ = self._buffer(0)  # where add has put the weights as they were
        return torch.stack([kernel.value(w, self.buffers) for kernel in self._kernels]).sum()

    def shrink(self, ws: list[Tensor], steps: Sequence[Taken]) -> None:
        w, weights = self._buffer(0)
        torch._foreach_copy_(weights, ws)
        taken = steps[0]
        if taken.second is None:
            self._prox.shrink(w, float(taken.factor), self.buffers)
        else:
            other, others = self._buffer(1)
            torch._foreach_copy_(others, [step.second for step in steps if step.second is not None])
            step = taken._replace(second=other).step(xp)
            w.copy_(self.rows.regularizer.prox_taken(w, step))
        torch._foreach_copy_(ws, weights)

    def _buffer(self, number: int) -> tuple[Tensor, list[Tensor]]:
        """A buffer as the kernels see it, and a view of it for each weight."""
        if number not in self._views:
            sizes = [shape.numel() for shape in self.shapes]
            whole = self.buffers.flat(sum(sizes), self.like, number)
            pieces = zip(torch.split(whole, sizes), self.shapes, strict=True)
            length = math.prod(self.shapes[0][self.rows.leading :])
            seen = whole if self.rows.is_flat else whole.view(-1, length)
            self._views[number] = seen, [piece.view(shape) for piece, shape in pieces]
        return self._views[number]


def _packs(shapes: Sequence[torch.Size]) -> Iterator[list[int]]:
    """The places of weights, in runs that fill a buffer."""
    pack: list[int] = []
    filled = 0
    for i, shape in enumerate(shapes):
        if pack and filled + shape.numel() > PACK:
            yield pack
            pack, filled = [], 0
        pack.append(i)
        filled += shape.numel()
    yield pack
