"""Weights on the CPU: one compiled kernel for all of one form and type.

As on the GPU, a kernel is generated from a regularizer's own functions, and finds weights by a
table of addresses and strengths by a table of numbers: another strength compiles nothing.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

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

LONGEST = 2**16
"""The longest row, or column, that a thread treats."""

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

    layouts: Sequence[Layout]
    routine: Routine
    _tables: dict[str, tuple[Any, Any]] = field(default_factory=dict)

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
            job = cls(numbers, [each for each in layouts if each is not None], routine)
            job.why = note
            yield job

        return Offer((cls, routine, *work.kind), make)

    def fits(self, ws: list[Tensor], besides: list[Tensor]) -> bool:
        return all(
            layout.can_view(w, beside)
            for layout, w, beside in zip(self.layouts, ws, besides, strict=True)
        )

    def add(self, ws: list[Tensor], tos: list[Tensor], scale: Any) -> None:
        self._run(self.routine, ws, tos, [(scale, 1.0, 0.0)] * len(ws))

    def value_and_add(self, ws: list[Tensor], tos: list[Tensor], scale: Any) -> Tensor:
        routine = replace(self.routine, with_value=True)
        values = self._run(routine, ws, tos, [(scale, 1.0, 0.0)] * len(ws))
        return values.sum()

    def shrink(self, ws: list[Tensor], steps: Sequence[Taken]) -> None:
        besides = [w if s.second is None else s.second for w, s in zip(ws, steps, strict=True)]
        self._run(self.routine, ws, besides, [(s.factor, s.scale, s.offset) for s in steps])

    def _run(
        self, routine: Routine, ws: list[Tensor], besides: list[Tensor], factors: Sequence[Any]
    ) -> Tensor:
        """What each block says of the value."""
        source = printed(routine)
        kernel = native.native(source.text).call
        shapes = [layout.shape_of(w) for layout, w in zip(self.layouts, ws, strict=True)]
        blocks = self._table("blocks", shapes, lambda: _blocks(routine, shapes))
        held = self._table("shapes", shapes, lambda: torch.tensor(shapes, device="cpu"))
        numbers = self._table("numbers", (shapes, factors), lambda: self._numbers(shapes, factors))
        addresses = [array("q", [x.data_ptr() for x in xs]) for xs in (ws, besides)]
        # On the CPU, whatever PyTorch's default device is.
        count = len(blocks) if routine.with_value else 0
        values = torch.empty(count, dtype=torch.float64, device="cpu")
        taken = torch.zeros(1, dtype=torch.int64, device="cpu")
        tables = [
            *(each.buffer_info()[0] for each in addresses),
            *(each.data_ptr() for each in (held, numbers, blocks, values, taken)),
        ]
        stride = self._table("stride", shapes, lambda: _stride(routine, shapes))
        count = _threads(sum(w.numel() for w in ws), len(blocks))
        wide = torch.float64 if routine.computed == "double" else torch.float32
        kept = torch.empty(count, source.kept * stride, dtype=wide, device="cpu")
        places = [each.data_ptr() for each in kept]

        def task(number: int) -> None:
            kernel(*tables, len(blocks), places[number], stride)

        workers.in_threads(task, count)
        return values

    def _numbers(self, shapes: Sequence[tuple[int, int]], factors: Sequence[Any]) -> Any:
        rows = []
        for layout, shape, factor in zip(self.layouts, shapes, factors, strict=True):
            length = shape[0] if layout.layout == "columns" else shape[1]
            strengths = form_of(layout.regularizer, length)[1]
            rows.append([*strengths, *factor, math.sqrt(length)])
        return torch.tensor(rows, dtype=torch.float64, device="cpu")

    def _table(self, name: str, content: Any, make: Callable[[], Any]) -> Any:
        """A table; made again only if something in it has changed."""
        held = self._tables.get(name)
        if held is None or held[0] != content:
            held = self._tables[name] = content, make()
        return held[1]


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
    if work.among < LEAST and not _at_any_size:
        return f"compiling pays from {LEAST:,} penalized weights on"
    length = layout.shape_of(w)[layout.layout == "rows"]
    if layout.layout != "flat" and length > LONGEST:
        return f"its groups are longer than {LONGEST:,}"
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


def _threads(elements: int, blocks: int) -> int:
    return 1 if elements <= ALONE else min(torch.get_num_threads(), blocks)
