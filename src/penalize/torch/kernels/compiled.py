"""Weights on the CPU: one compiled kernel for all of one form and type.

As on the GPU, a kernel is generated from a regularizer's own functions, and finds weights by a
table of addresses and strengths by a table of numbers: another strength compiles nothing.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import filterfalse
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from penalize.regularizers.base import Regularizer
from penalize.steps import Taken
from penalize.torch.kernels import native, triton, workers
from penalize.torch.kernels.cpu import Buffers
from penalize.torch.kernels.forms import form_of, prox_of
from penalize.torch.kernels.jobs import Job, Note, Offer
from penalize.torch.kernels.printer import Routine, printed
from penalize.torch.kernels.rows import Columns, Rows, columns_of, rows_of
from penalize.torch.kernels.symbols import NotTraceableError
from penalize.torch.kernels.work import Work

LEAST = 2**20
"""How many elements the penalized weights must have together, so that compiling pays."""

BLOCK = 2**14
"""How many elements a thread takes at once."""

LONGEST = {"rows": 2**16, "columns": 2**14}
"""The longest row, or column, that a thread treats: some of them have to fit the cache."""

ALONE = 2**15
"""Up to so many elements one thread is enough."""

_TYPES = {
    torch.float16: "half",
    torch.bfloat16: "bfloat",
    torch.float32: "float",
    torch.float64: "double",
}

_at_any_size: list[None] = []


@contextmanager
def at_any_size() -> Iterator[None]:
    """Within the block small weights take this path too, for tests."""
    _at_any_size.append(None)
    try:
        yield
    finally:
        _at_any_size.pop()


Layout = Rows | Columns


@dataclass
class Compiled(Job):
    """Weights of one form and type, by one kernel."""

    path = "compiled"
    sees_layout = True

    shapes: Sequence[tuple[int, int]]
    """How many rows they have, and of what length."""

    routine: Routine
    layouts: Sequence[Layout]
    regularizers: Sequence[Regularizer]
    why: str = ""

    @classmethod
    def offer(cls, work: Work, buffers: Buffers) -> Offer | str:
        if work.w.device.type != "cpu" or work.on_device or triton.acts_on(work.w.device):
            return ""
        if _is_decay(work):
            return ""
        layout = layout_of(work.regularizer, work.w.ndim)
        found = routine_for(layout, work)
        if isinstance(found, str):
            return Note(found)
        routine, note = found

        def make(numbers: Sequence[int], works: Sequence[Work]) -> Iterator[Job]:
            layouts = [layout_of(each.regularizer, each.w.ndim) for each in works]
            known = [each for each in layouts if each is not None]
            shapes = [of.shape_of(each.w) for of, each in zip(known, works, strict=True)]
            regularizers = [each.regularizer for each in works]
            yield cls(numbers, shapes, routine, known, regularizers, note)

        return Offer((cls, routine, *work.kind), make)

    def __post_init__(self) -> None:
        routine, shapes = self.routine, self.shapes
        self._shapes = torch.tensor(shapes, device="cpu")
        self._blocks = _blocks(routine, shapes)
        self._stride = _stride(routine, shapes)
        self._counts = [height * length for height, length in shapes]
        elements = sum(self._counts)
        # A thread that wakes up for less would come late.
        self._most_threads = 1 if elements <= ALONE else max(2, len(self._blocks) // 4)
        rows = []
        for layout, (height, length) in zip(self.layouts, shapes, strict=True):
            size = height if routine.layout == "columns" else length
            rows.append([*form_of(layout.regularizer, size)[1], *_NO_FACTORS, math.sqrt(size)])
        self._numbers = torch.tensor(rows, dtype=torch.float64, device="cpu")
        self._factors = _NO_FACTORS
        self._seen: tuple[list[array[int]], bool] = [], False

    def fits(self, ws: list[Tensor], besides: list[Tensor]) -> bool:
        if _why_not_in_memory(ws) or _why_not_in_memory(besides):
            return False
        if all(map(Tensor.is_contiguous, ws)) and all(map(Tensor.is_contiguous, besides)):
            return True
        return all(
            layout.can_view(w, beside)
            for layout, w, beside in zip(self.layouts, ws, besides, strict=True)
        )

    def add(self, ws: list[Tensor], tos: list[Tensor], scale: Any) -> None:
        self._run(self.routine, ws, tos, (scale, 1.0, 0.0))

    def value_and_add(self, ws: list[Tensor], tos: list[Tensor], scale: Any) -> Tensor:
        if self._with_value is not None:
            return self._run(self._with_value, ws, tos, (scale, 1.0, 0.0)).sum()
        each = zip(self.regularizers, ws, strict=True)
        value = torch.stack([regularizer(w).double() for regularizer, w in each]).sum()
        self.add(ws, tos, scale)
        return value

    @cached_property
    def _with_value(self) -> Routine | None:
        """The kernel that finds the value too; None where this one cannot be compiled."""
        routine = replace(self.routine, with_value=True)
        try:
            native.native(printed(routine).text)
        except Exception:  # noqa: BLE001  # whatever it is, regularizers know their values
            return None
        return routine

    def shrink(self, ws: list[Tensor], steps: Sequence[Taken]) -> None:
        # All of one key, so that they differ in nothing but their second moments.
        first, besides = steps[0], ws
        if first.second is not None:
            besides = [step.second for step in steps if step.second is not None]
        self._run(self.routine, ws, besides, (first.factor, first.scale, first.offset))

    def _run(
        self,
        routine: Routine,
        ws: list[Tensor],
        besides: list[Tensor],
        factors: tuple[float, float, float],
    ) -> Tensor:
        """What each block says of the value."""
        source = printed(routine)
        kernel, blocks, stride = native.native(source.text).call, self._blocks, self._stride
        if factors != self._factors:
            self._numbers[:, -4:-1] = torch.tensor(factors, dtype=torch.float64, device="cpu")
            self._factors = factors
        addresses = [array("q", map(Tensor.data_ptr, xs)) for xs in (ws, besides)]
        # On the CPU, whatever PyTorch's default device is.
        count = len(blocks) if routine.with_value else 0
        values = torch.empty(count, dtype=torch.float64, device="cpu")
        taken = torch.zeros(1, dtype=torch.int64, device="cpu")
        tables = [
            *(each.buffer_info()[0] for each in addresses),
            *(x.data_ptr() for x in (self._shapes, self._numbers, blocks, values, taken)),
        ]
        threads = min(torch.get_num_threads(), self._most_threads)
        if threads > 1 and self._share_memory(addresses, ws[0].element_size()):
            threads = 1  # which takes one weight after the other
        wide = torch.float64 if routine.computed == "double" else torch.float32
        kept = torch.empty(threads, source.kept * stride, dtype=wide, device="cpu")
        places = [each.data_ptr() for each in kept]

        # What is at these addresses lives as long as any thread works on it.
        alive = (ws, besides, addresses, values, taken, kept, self)

        def task(number: int, _: Any = alive) -> None:
            kernel(*tables, len(blocks), places[number], stride)

        workers.in_threads(task, threads)
        # One by one: not every version of PyTorch takes a list. Those of inference have no version.
        for x in filterfalse(Tensor.is_inference, ws if routine.prox else besides):
            increment_version(x)
        return values

    def _share_memory(self, addresses: list[array[int]], size: int) -> bool:
        """Whether what is written for one weight is read or written for another, as where two
        parameters have one storage, or one gradient.
        """
        if self._seen[0] != addresses:
            written, read = addresses if self.routine.prox else reversed(addresses)
            ranges = []
            for first, also, count in zip(written, read, self._counts, strict=True):
                ranges.append((first, first + size * count, True))
                if also != first:  # a weight may be what its own gradient is added to
                    ranges.append((also, also + size * count, False))
            self._seen = addresses, _overlap(ranges)
        return self._seen[1]


def _overlap(ranges: list[tuple[int, int, bool]]) -> bool:
    """Whether of these (first, end, is written) one that is written overlaps another."""
    end_of_all = end_of_written = 0
    for first, end, is_written in sorted(ranges):
        if first < (end_of_all if is_written else end_of_written):
            return True
        if is_written:
            end_of_all = end_of_written = end
        else:
            end_of_all = max(end_of_all, end)
    return False


_NO_FACTORS = (0.0, 0.0, 0.0)


def _why_not_in_memory(xs: Sequence[Tensor]) -> str:
    """Why elements, of which there are some, are not those in memory; empty where they are."""
    if any(map(Tensor.is_neg, xs)):
        return "what is in memory has the other sign"
    return "" if all(map(Tensor.data_ptr, xs)) else "it is not in memory"


def layout_of(regularizer: Regularizer, ndim: int) -> Layout | None:
    """The rows of a weight, where it treats these one by one; else its columns."""
    return rows_of(regularizer, ndim) or columns_of(regularizer, ndim)


def _is_decay(work: Work) -> bool:
    """Whether a weight is to be multiplied, which is rounded as AdamW does it."""
    l1, _, rest = work.regularizer.split()
    return work.step is None and work.beside is work.w and not (l1 or rest)


def routine_for(layout: Layout | None, work: Work) -> tuple[Routine, str] | str:
    """What treats a weight with others like it, and a note on it; or why there is nothing."""
    w = work.w
    if layout is None or w.dtype not in _TYPES or not layout.can_view(w, work.beside):
        return "it does not lie in rows or columns that are penalized one by one"
    if why := _why_not_in_memory([w, work.beside]):
        return why
    if work.among < LEAST and not _at_any_size:
        return f"compiling pays from {LEAST:,} penalized weights on"
    length = layout.shape_of(w)[layout.layout == "rows"]
    longest = LONGEST.get(layout.layout, length)
    if length > longest:
        return f"its groups are longer than {longest:,}"
    why = native.why_not_here() or native.why_not_of(_TYPES[w.dtype])
    if why:
        return why
    try:
        form, _ = form_of(layout.regularizer, length)
        routine = Routine(form, _TYPES[w.dtype], layout.layout, prox_of(work.step))
        source = printed(routine)
    except (NotTraceableError, TypeError, AttributeError) as error:
        return f"its formula has no place in a kernel: {error}"
    try:
        return routine, native.native(source.text).note
    except Exception as error:  # noqa: BLE001  # whatever it is, there are other paths
        return f"it could not be compiled: {error}"


def _blocks(routine: Routine, shapes: Sequence[tuple[int, int]]) -> Any:
    """(number of a weight, first, last) of rows, columns or elements, for each block."""
    parts = []
    for i, (height, length) in enumerate(shapes):
        whole, step = {
            "flat": (length, BLOCK),
            "rows": (height, max(1, BLOCK // length)),
            "columns": (length, routine.lanes),
        }[routine.layout]
        first = torch.arange(0, whole, step, device="cpu")
        last = (first + step).clamp_(max=whole)
        parts.append(torch.stack([torch.full_like(first, i), first, last], dim=1))
    return torch.cat(parts)


def _stride(routine: Routine, shapes: Sequence[tuple[int, int]]) -> int:
    """How many elements a row has at most, or as many columns as a vector has."""
    if routine.layout == "columns":
        return max(height for height, _ in shapes) * routine.lanes
    return max(length for _, length in shapes) if routine.layout == "rows" else 0
