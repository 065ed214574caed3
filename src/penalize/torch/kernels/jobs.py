"""Jobs: weights that are treated in one go, each kind of job on one path.

A job is made when it is decided which weights go together, and run in every step with the tensors
that are there then. It keeps buffers, and no view of a weight.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from penalize.backends import torch as xp
from penalize.regularizers.base import Regularizer
from penalize.steps import Taken
from penalize.torch.kernels.cpu import Buffers, Kernel, kernels_of, prox_kernel_of

PACKED = 2**15
"""Weights of up to as many elements are treated together: for these one thread is enough."""

PACK = 2**17
"""How many elements are packed into one buffer."""


@dataclass
class Job(ABC):
    """What is done to some of the weights."""

    path: ClassVar[str]
    """Its name, as ``attachment.explain()`` has it."""

    numbers: Sequence[int]
    """Which of the weights."""

    why = ""
    """Why it is the plain one; else empty."""

    def fits(self, ws: list[Tensor], besides: list[Tensor]) -> bool:
        """Whether it can treat tensors that lie in memory as these do."""
        return True

    @abstractmethod
    def add(self, ws: list[Tensor], tos: list[Tensor], scale: Any) -> None:
        """to ← to + scale·∇Ω(w) for each; ``to`` may be w itself."""

    @abstractmethod
    def value_and_add(self, ws: list[Tensor], tos: list[Tensor], scale: Any) -> Tensor:
        """The same, and Σ Ω(w) of the weights before it, in float64."""

    @abstractmethod
    def shrink(self, ws: list[Tensor], steps: Sequence[Taken]) -> None:
        """w ← prox of step·Ω at w for each."""


class Rows(NamedTuple):
    """How a weight is seen as a matrix whose rows a regularizer treats one by one."""

    regularizer: Regularizer
    """On the matrix."""

    leading: int
    """How many leading axes of the weight index the rows."""

    is_flat: bool
    """Whether it treats elements one by one, so that rows do not matter."""

    def of(self, x: Tensor) -> Tensor:
        """A view of a weight, or of what is beside it."""
        if not x.is_contiguous():  # then it is in the order of the channels, by can_view()
            x = x.permute(0, 2, 3, 1)
        if self.is_flat:
            return x.view(-1)
        return x.view(math.prod(x.shape[: self.leading]), -1)

    def can_view(self, *xs: Tensor) -> bool:
        """Whether these lie in memory in one order, so that views of them match."""
        if all(x.is_contiguous() for x in xs):
            return xs[0].numel() > 0
        ordered = all(x.is_contiguous(memory_format=torch.channels_last) for x in xs if x.ndim == 4)
        return (self.is_flat or self.leading == 1) and xs[0].ndim == 4 and ordered


def rows_of(regularizer: Regularizer, ndim: int) -> Rows | None:
    """None where a regularizer does not treat the rows of any matrix one by one."""
    found = regularizer.by_rows(ndim)
    return None if found is None else Rows(*found, is_flat=found[0].elementwise)


@dataclass
class Plain(Job):
    """The reference: one weight, by the regularizer's own functions."""

    path = "plain"

    regularizer: Regularizer
    why: str

    def add(self, ws: list[Tensor], tos: list[Tensor], scale: float | Tensor) -> None:
        l1, l2, rest = self.regularizer.split()
        for w, to in zip(ws, tos, strict=True):
            if w is to and not (l1 or rest):
                to.mul_(1 + scale * (2 * l2))  # rounded as AdamW does it
            else:
                to.add_(scale * self.regularizer.gradient(w))

    def value_and_add(self, ws: list[Tensor], tos: list[Tensor], scale: Any) -> Tensor:
        value = torch.stack([self.regularizer(w).double() for w in ws]).sum()
        self.add(ws, tos, scale)
        return value

    def shrink(self, ws: list[Tensor], steps: Sequence[Taken]) -> None:
        for w, step in zip(ws, steps, strict=True):
            w.copy_(self.regularizer.prox_taken(w, step.step(xp)))


@dataclass
class Foreach(Job):
    """L2, by one call for a list of tensors."""

    path = "foreach"

    l2: float

    def add(self, ws: list[Tensor], tos: list[Tensor], scale: float) -> None:
        if ws[0] is tos[0]:
            torch._foreach_mul_(tos, 1 + scale * (2 * self.l2))  # rounded as AdamW does it
        else:
            torch._foreach_add_(tos, ws, alpha=2 * self.l2 * scale)

    def value_and_add(self, ws: list[Tensor], tos: list[Tensor], scale: float) -> Tensor:
        if ws[0].device.type == "cpu" and ws[0].dtype.itemsize >= 4:
            flat = [w.reshape(-1) for w in ws]
            squares = torch.stack([torch.dot(w, w) for w in flat]).double()
        else:
            wide = torch.promote_types(ws[0].dtype, torch.float32)
            squares = torch.stack(torch._foreach_norm(ws, dtype=wide)).double().square()
        self.add(ws, tos, scale)
        return self.l2 * squares.sum()

    def shrink(self, ws: list[Tensor], steps: Sequence[Taken]) -> None:
        (factor,) = {step.factor for step in steps}
        torch._foreach_div_(ws, 1 + (2 * self.l2) * factor)


@dataclass
class Chunked(Job):
    """A large weight, part by part while a part is in the cache."""

    path = "chunked"

    rows: Rows
    is_wide: bool
    """Whether its dtype is float32 or wider."""

    buffers: Buffers

    def __post_init__(self) -> None:
        self._kernels = kernels_of(self.rows.regularizer, (1,), wide=self.is_wide)
        self._prox = prox_kernel_of(self.rows.regularizer, (1,), wide=self.is_wide)

    def fits(self, ws: list[Tensor], tos: list[Tensor]) -> bool:
        return self.rows.can_view(ws[0], tos[0])

    def add(self, ws: list[Tensor], tos: list[Tensor], scale: float) -> None:
        for part, its in self._parts(ws[0], tos[0]):
            self._add(part, its, scale)

    def value_and_add(self, ws: list[Tensor], tos: list[Tensor], scale: float) -> Tensor:
        value = torch.zeros((), dtype=torch.float64)
        for part, its in self._parts(ws[0], tos[0]):
            if len(self._kernels) == 1:
                value += self._kernels[0].value_and_add(part, its, scale, self.buffers)
                continue
            for kernel in self._kernels:
                value += kernel.value(part, self.buffers)
            self._add(part, its, scale)
        return value

    def _parts(self, w: Tensor, to: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        w, to = self.rows.of(w), self.rows.of(to)
        count = _count(w, min(kernel.length for kernel in self._kernels))
        return zip(torch.split(w, count), torch.split(to, count), strict=True)

    def _add(self, part: Tensor, its: Tensor, scale: float) -> None:
        if part.data_ptr() == its.data_ptr() and len(self._kernels) > 1:
            # All of the gradient is that of the weight before it moves.
            its.add_(scale * self.rows.regularizer.gradient(part))
            return
        for kernel in self._kernels:
            kernel.add_gradient(part, its, scale, self.buffers)

    def shrink(self, ws: list[Tensor], steps: Sequence[Taken]) -> None:
        w, (taken,) = self.rows.of(ws[0]), steps
        count = _count(w, self._prox.length)
        parts = torch.split(w, count)
        if taken.second is None:
            for part in parts:
                self._prox.shrink(part, float(taken.factor), self.buffers)
            return
        for part, second in zip(parts, torch.split(self.rows.of(taken.second), count), strict=True):
            step = taken._replace(second=second).step(xp)
            part.copy_(self.rows.regularizer.prox_taken(part, step))


def _count(w: Tensor, length: int) -> int:
    """How many rows, or elements, a part of about so many elements has."""
    return max(1, length // w.shape[1]) if w.ndim == 2 else length


@dataclass
class Whole(Job):
    """A group lasso along other axes than the leading ones: one pass for the norms, one more."""

    path = "whole"

    kernel: Kernel
    buffers: Buffers

    def add(self, ws: list[Tensor], tos: list[Tensor], scale: float) -> None:
        self.kernel.add_gradient(ws[0], tos[0], scale, self.buffers)

    def value_and_add(self, ws: list[Tensor], tos: list[Tensor], scale: float) -> Tensor:
        return self.kernel.value_and_add(ws[0], tos[0], scale, self.buffers)

    def shrink(self, ws: list[Tensor], steps: Sequence[Taken]) -> None:
        self.kernel.shrink(ws[0], float(steps[0].factor), self.buffers)


@dataclass
class Packed(Job):
    """Small weights of one regularizer, copied side by side and treated as one."""

    path = "packed"

    rows: Rows
    shapes: Sequence[torch.Size]
    like: Tensor
    """Without elements, of their dtype and on their device."""

    buffers: Buffers
    _views: dict[int, tuple[Tensor, list[Tensor]]] = field(default_factory=dict)

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
