"""Jobs: weights that are treated in one go, each kind of job on one path.

A job is made when it is decided which weights go together, and run in every step with the tensors
that are there then. It keeps buffers, and no view of a weight.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor

from penalize.backends import torch as xp
from penalize.regularizers.base import Regularizer
from penalize.steps import Taken
from penalize.torch.kernels.cpu import (
    Buffers,
    Kernel,
    kernel_of_whole,
    kernels_of,
    prox_kernel_of,
)
from penalize.torch.kernels.rows import Rows, rows_of
from penalize.torch.kernels.work import Work

PACKED = 2**15
"""Weights of up to as many elements are treated together: for these one thread is enough."""


class Offer(NamedTuple):
    """A kind of job that takes a weight."""

    key: Hashable
    """Weights of one key go together."""

    make: Callable[[Sequence[int], Sequence[Work]], Iterable[Job]]
    """The numbers of weights, and these → the jobs that they make up."""


T = TypeVar("T")
X = TypeVar("X")


class Note(str):
    """Why a kind of job does not take a weight that others may."""

    __slots__ = ()


@dataclass
class Job(ABC):
    """What is done to some of the weights."""

    path: ClassVar[str]
    """The name of the path, as ``attachment.explain()`` has it."""

    numbers: Sequence[int]
    """Which of the weights."""

    why = ""
    """What is to be said about the path; why, where it is the plain one."""

    takes_shards: ClassVar[bool] = False
    """Whether it asks for sharded weights."""

    def its(self, xs: Sequence[X]) -> list[X]:
        """The entries of a column that are of its weights."""
        # They are in order: as many as there are, are all.
        return list(xs) if len(xs) == len(self.numbers) else [xs[i] for i in self.numbers]

    def fits(self, ws: list[Tensor], besides: list[Tensor]) -> bool:
        """Whether it can treat these, which look as those did that it was made for."""
        return True

    @classmethod
    @abstractmethod
    def offer(cls, work: Work, buffers: Buffers) -> Offer | str:
        """What it takes a weight together with. Else why neither it nor a later kind does; empty,
        or a :class:`Note`, where a later one may.
        """


class Penalizing(Job):
    """What adds gradients, and takes proximal steps."""

    @abstractmethod
    def add(self, ws: list[Tensor], tos: list[Tensor], scale: Any) -> None:
        """to ← to + scale·∇Ω(w) for each; ``to`` may be w itself."""

    @abstractmethod
    def value_and_add(self, ws: list[Tensor], tos: list[Tensor], scale: Any) -> Tensor:
        """The same, and Σ Ω(w) of the weights before it, in float64."""

    @abstractmethod
    def shrink(self, ws: list[Tensor], steps: Sequence[Taken]) -> None:
        """w ← prox of step·Ω at w for each."""


@dataclass
class PlainJob(Penalizing):
    """The reference: one weight, by the regularizer's own functions."""

    path = "plain"

    regularizer: Regularizer
    why: str

    @classmethod
    def offer(cls, work: Work, buffers: Buffers, why: str = "") -> Offer:
        why = why or "no other path takes it"
        return Offer(id(work.w), lambda numbers, _: [cls(numbers, work.regularizer, why)])

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
class Foreach(Penalizing):
    """L2, by one call for a list of tensors."""

    path = "foreach"

    l2: float

    @classmethod
    def offer(cls, work: Work, buffers: Buffers) -> Offer | str:
        l1, l2, rest = work.regularizer.split()
        # As a factor of an addition, a strength would be rounded to half precision.
        exact = work.w.dtype.itemsize >= 4 or work.beside is work.w
        if l1 or rest or work.per_element or work.on_device or not exact:
            return ""
        if not isinstance(l2, float):
            return ""
        return Offer((cls, l2, *work.kind), lambda numbers, _: [cls(numbers, l2)])

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
class Chunked(Penalizing):
    """A large weight, part by part while a part is in the cache."""

    path = "chunked"

    rows: Rows
    is_wide: bool
    """Whether its dtype is float32 or wider."""

    buffers: Buffers

    @classmethod
    def offer(cls, work: Work, buffers: Buffers) -> Offer | str:
        why, rows = why_not_on_cpu(work), cpu_rows_of(work)
        if why or rows is None or (work.w.numel() <= PACKED and work.w.is_contiguous()):
            return why
        wide = work.w.dtype.itemsize >= 4
        return _alone(work, lambda numbers: cls(numbers, rows, wide, buffers))

    def __post_init__(self) -> None:
        self._kernels = kernels_of(self.rows.regularizer, (1,), wide=self.is_wide)
        self._prox = prox_kernel_of(self.rows.regularizer, (1,), wide=self.is_wide)

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
class Whole(Penalizing):
    """A group lasso along other axes than the leading ones: one pass for the norms, one more."""

    path = "whole"

    kernel: Kernel
    buffers: Buffers

    @classmethod
    def offer(cls, work: Work, buffers: Buffers) -> Offer | str:
        why = why_not_on_cpu(work)
        if why or cpu_rows_of(work) is not None:
            return why
        kernel = kernel_of_whole(work.regularizer, work.w)
        if kernel is None or work.per_element or work.w.dtype.itemsize < 4:
            return "it cannot be seen as rows that are penalized one by one"
        return _alone(work, lambda numbers: cls(numbers, kernel, buffers))

    def add(self, ws: list[Tensor], tos: list[Tensor], scale: float) -> None:
        self.kernel.add_gradient(ws[0], tos[0], scale, self.buffers)

    def value_and_add(self, ws: list[Tensor], tos: list[Tensor], scale: float) -> Tensor:
        return self.kernel.value_and_add(ws[0], tos[0], scale, self.buffers)

    def shrink(self, ws: list[Tensor], steps: Sequence[Taken]) -> None:
        self.kernel.shrink(ws[0], float(steps[0].factor), self.buffers)


# --- what jobs on the CPU ask -------------------------------------------------------------------


def why_not_on_cpu(work: Work) -> str:
    """Why no kernel of the CPU treats a weight; empty where one may."""
    if work.on_device:
        return "a scale is known on the device only"
    return "" if work.w.device.type == "cpu" else f"there is no kernel for {work.w.device.type}"


def cpu_rows_of(work: Work) -> Rows | None:
    """How its rows are treated one by one; None where they are not, or do not lie in order."""
    rows = rows_of(work.regularizer, work.w.ndim)
    return rows if rows is not None and rows.can_view(work.w, work.beside) else None


def _alone(work: Work, make: Callable[[Sequence[int]], Job]) -> Offer:
    return Offer(id(work.w), lambda numbers, _: [make(numbers)])
