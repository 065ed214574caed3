"""Jobs: weights that are treated in one go, each kind of job on one path.

A job is made when it is decided which weights go together, and run in every step with the tensors
that are there then. It keeps buffers, and no view of a weight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from penalize.regularizers.base import Regularizer
from penalize.torch.kernels.cpu import Kernel, kernels_of, prox_kernel_of
from penalize.torch.steps import Taken, bounded

PACKED = 2**15
"""Weights of up to as many elements are treated together: for these one thread is enough."""

PACK = 2**17
"""How many elements are packed into one buffer."""


class Job(Protocol):
    """What is done to some of the weights."""

    @property
    def path(self) -> str:
        """Its name, for :meth:`explain`."""

    @property
    def why(self) -> str:
        """Why it is the plain one; else empty."""

    @property
    def numbers(self) -> Sequence[int]:
        """Which of the weights."""

    def fits(self, ws: list[Tensor], besides: list[Tensor]) -> bool:
        """Whether it can treat these tensors in the place of those that it was made for."""

    def add(self, ws: list[Tensor], tos: list[Tensor], scale: Any) -> None:
        """to ← to + scale·∇Ω(w) for each; ``to`` may be w itself."""

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
class Plain:
    """The reference: one weight, by the regularizer's own functions."""

    path: ClassVar[str] = "plain"

    numbers: Sequence[int]
    regularizer: Regularizer
    why: str

    def fits(self, ws: list[Tensor], tos: list[Tensor]) -> bool:
        return True

    def add(self, ws: list[Tensor], tos: list[Tensor], scale: float | Tensor) -> None:
        for w, to in zip(ws, tos, strict=True):
            to.add_(scale * self.regularizer.gradient(w))

    def shrink(self, ws: list[Tensor], steps: Sequence[Taken]) -> None:
        for w, step in zip(ws, steps, strict=True):
            w.copy_(self.regularizer.prox(w, bounded(step, self.regularizer, w)))


@dataclass
class Foreach:
    """L2, by one call for a list of tensors."""

    path: ClassVar[str] = "foreach"
    why: ClassVar[str] = ""

    numbers: Sequence[int]
    l2: float

    def fits(self, ws: list[Tensor], tos: list[Tensor]) -> bool:
        return True

    def add(self, ws: list[Tensor], tos: list[Tensor], scale: float) -> None:
        if ws[0] is tos[0]:
            torch._foreach_mul_(tos, 1 + scale * (2 * self.l2))  # rounded as AdamW does it
        else:
            torch._foreach_add_(tos, ws, alpha=2 * self.l2 * scale)

    def shrink(self, ws: list[Tensor], steps: Sequence[Taken]) -> None:
        (factor,) = {step.factor for step in steps}
        torch._foreach_div_(ws, 1 + (2 * self.l2) * factor)


class Buffers:
    """Memory that is used again in each step: a few pieces per dtype and device."""

    def __init__(self) -> None:
        self._held: dict[tuple[Any, ...], Tensor] = {}

    def flat(self, count: int, like: Tensor, number: int = 0) -> Tensor:
        """A piece of so many elements; another number is another piece."""
        key = (number, like.dtype, like.device)
        held = self._held.get(key)
        if held is None or held.numel() < count:
            held = like.new_empty(count)
            self._held[key] = held
        return held[:count]


@dataclass
class Chunked:
    """A large weight, part by part while a part is in the cache."""

    path: ClassVar[str] = "chunked"
    why: ClassVar[str] = ""

    numbers: Sequence[int]
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
        w, to = self.rows.of(ws[0]), self.rows.of(tos[0])
        count = _count(w, min(kernel.length for kernel in self._kernels))
        for part, its in zip(torch.split(w, count), torch.split(to, count), strict=True):
            buffer = self.buffers.flat(part.numel(), part).view(part.shape)
            if ws[0] is tos[0] and len(self._kernels) > 1:
                gradient = self.rows.regularizer.gradient(part)  # of the weight before it moves
                its.add_(scale * gradient)
                continue
            for kernel in self._kernels:
                kernel.add_gradient(part, its, scale, buffer)

    def shrink(self, ws: list[Tensor], steps: Sequence[Taken]) -> None:
        w, (taken,) = self.rows.of(ws[0]), steps
        count = _count(w, self._prox.length)
        parts = torch.split(w, count)
        if taken.second is None:
            for part in parts:
                buffer = self.buffers.flat(part.numel(), part).view(part.shape)
                self._prox.shrink(part, float(taken.factor), buffer)
            return
        for part, second in zip(parts, torch.split(self.rows.of(taken.second), count), strict=True):
            step = bounded(taken._replace(second=second), self.rows.regularizer, part)
            part.copy_(self.rows.regularizer.prox(part, step))


def _count(w: Tensor, length: int) -> int:
    """How many rows, or elements, a part of about so many elements has."""
    return max(1, length // w.shape[1]) if w.ndim == 2 else length


@dataclass
class Whole:
    """A group lasso along other axes than the leading ones: one pass for the norms, one more."""

    path: ClassVar[str] = "whole"
    why: ClassVar[str] = ""

    numbers: Sequence[int]
    kernel: Kernel

    def fits(self, ws: list[Tensor], tos: list[Tensor]) -> bool:
        return True

    def add(self, ws: list[Tensor], tos: list[Tensor], scale: float) -> None:
        self.kernel.add_gradient(ws[0], tos[0], scale, ws[0])

    def shrink(self, ws: list[Tensor], steps: Sequence[Taken]) -> None:
        self.kernel.shrink(ws[0], float(steps[0].factor), ws[0])


@dataclass
class Packed:
    """Small weights of one regularizer, copied side by side and treated as one."""

    path: ClassVar[str] = "packed"
    why: ClassVar[str] = ""

    numbers: Sequence[int]
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

    def fits(self, ws: list[Tensor], tos: list[Tensor]) -> bool:
        dtype = self.like.dtype
        return all(
            w.shape == shape and w.dtype is dtype and to.dtype is dtype
            for w, to, shape in zip(ws, tos, self.shapes, strict=True)
        )

    def add(self, ws: list[Tensor], tos: list[Tensor], scale: float) -> None:
        w, weights = self._buffer(0)
        gradient, gradients = self._buffer(1)
        torch._foreach_copy_(weights, ws)
        first, *others = self._kernels
        first.gradient(w, gradient)
        for kernel in others:
            kernel.add_gradient(w, gradient, 1.0, self._buffer(2)[0])
        if scale != 1:
            gradient.mul_(scale)
        torch._foreach_add_(tos, gradients)

    def shrink(self, ws: list[Tensor], steps: Sequence[Taken]) -> None:
        w, weights = self._buffer(0)
        other, others = self._buffer(1)
        torch._foreach_copy_(weights, ws)
        taken = steps[0]
        if taken.second is None:
            self._prox.shrink(w, float(taken.factor), other)
        else:
            torch._foreach_copy_(others, [step.second for step in steps if step.second is not None])
            step = bounded(taken._replace(second=other), self.rows.regularizer, w)
            w.copy_(self.rows.regularizer.prox(w, step))
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
