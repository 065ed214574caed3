"""Weights on the CPU: one compiled kernel for all of one form and type.

As on the GPU, a kernel is generated from a regularizer's own functions, and finds weights by a
table of addresses and strengths by a table of numbers: another strength compiles nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penalize.regularizers.base import Regularizer
from penalize.steps import Taken
from penalize.torch.kernels import native, triton, workers
from penalize.torch.kernels.cpu import Buffers
from penalize.torch.kernels.forms import form_of, prox_of
from penalize.torch.kernels.jobs import Job, Note, Offer
from penalize.torch.kernels.printer import PLACES, Program, source_of
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
    program: Program
    _tables: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    @classmethod
    def offer(cls, work: Work, buffers: Buffers) -> Offer | str:
        if work.w.device.type != "cpu" or work.on_device or triton.acts_on(work.w.device):
            return ""
        if _is_decay(work):
            return ""
        layout = layout_of(work.regularizer, work.w.ndim)
        found = program_for(layout, work)
        if isinstance(found, str):
            return Note(found)
        program, note = found

        def make(numbers: Sequence[int], works: Sequence[Work]) -> Iterator[Job]:
            layouts = [layout_of(each.regularizer, each.w.ndim) for each in works]
            job = cls(numbers, [each for each in layouts if each is not None], program)
            job.why = note
            yield job

        return Offer((cls, program, *work.kind), make)

    def fits(self, ws: list[Tensor], besides: list[Tensor]) -> bool:
        return all(
            layout.can_view(w, beside)
            for layout, w, beside in zip(self.layouts, ws, besides, strict=True)
        )

    def add(self, ws: list[Tensor], tos: list[Tensor], scale: Any) -> None:
        self._run(self.program, ws, tos, [(scale, 1.0, 0.0)] * len(ws))

    def value_and_add(self, ws: list[Tensor], tos: list[Tensor], scale: Any) -> Tensor:
        program = replace(self.program, with_value=True)
        values = self._run(program, ws, tos, [(scale, 1.0, 0.0)] * len(ws))
        return torch.tensor(values.sum(), dtype=torch.float64)

    def shrink(self, ws: list[Tensor], steps: Sequence[Taken]) -> None:
        besides = [w if s.second is None else s.second for w, s in zip(ws, steps, strict=True)]
        self._run(self.program, ws, besides, [(s.factor, s.scale, s.offset) for s in steps])

    def _run(
        self, program: Program, ws: list[Tensor], besides: list[Tensor], factors: Sequence[Any]
    ) -> Any:
        """What each block says of the value."""
        source = source_of(program)
        kernel = native.native(source.text).call
        shapes = [layout.shape_of(w) for layout, w in zip(self.layouts, ws, strict=True)]
        blocks = self._table("blocks", shapes, lambda: _blocks(program, shapes))
        numbers = self._table("numbers", (shapes, factors), lambda: self._numbers(shapes, factors))
        places = np.empty((len(ws), PLACES), np.int64)
        places[:, 0] = [w.data_ptr() for w in ws]
        places[:, 1] = [beside.data_ptr() for beside in besides]
        places[:, 2:] = shapes
        values = np.empty(len(blocks) if program.with_value else 0)
        stride = self._table("stride", shapes, lambda: _stride(program, shapes))
        count = _threads(sum(w.numel() for w in ws), len(blocks))
        kept = "f8" if program.computed == "double" else "f4"
        scratch = [np.empty(source.kept * stride, kept) for _ in range(count)]
        following = np.zeros(1, np.int64)
        tables = [x.ctypes.data for x in (places, numbers, blocks, values)]

        def task(number: int) -> None:
            kept_at = scratch[number].ctypes.data
            kernel(*tables, kept_at, stride, following.ctypes.data, len(blocks))

        workers.in_threads(task, count)
        return values

    def _numbers(self, shapes: Sequence[tuple[int, int]], factors: Sequence[Any]) -> Any:
        rows = []
        for layout, shape, factor in zip(self.layouts, shapes, factors, strict=True):
            length = shape[0] if layout.layout == "columns" else shape[1]
            strengths = form_of(layout.regularizer, length)[1]
            rows.append([*strengths, *factor, math.sqrt(length)])
        return np.array(rows, np.float64)

    def _table(self, name: str, content: Any, make: Callable[[], Any]) -> Any:
        """A table; made again only if something in it has changed."""
        held = self._tables.get(name)
        if held is None or held[0] != content:
            held = self._tables[name] = content, make()
        return held[1]


def layout_of(regularizer: Regularizer, ndim: int) -> Layout | None:
    """Its rows where it treats these one by one, else its columns."""
    return rows_of(regularizer, ndim) or columns_of(regularizer, ndim)


def _is_decay(work: Work) -> bool:
    """Whether a weight is to be multiplied, which is rounded as AdamW does it."""
    l1, _, rest = work.regularizer.split()
    return work.step is None and work.beside is work.w and not (l1 or rest)


def program_for(layout: Layout | None, work: Work) -> tuple[Program, str] | str:
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
        program = Program(form, _TYPES[w.dtype], layout.layout, prox_of(work.step))
        source = source_of(program)
    except (NotTraceableError, TypeError, AttributeError) as error:
        return f"its formula has no place in a kernel: {error}"
    try:
        return program, native.native(source.text).note
    except Exception as error:  # noqa: BLE001  # whatever it is, there are other paths
        return f"it could not be compiled: {error}"


def _blocks(program: Program, shapes: Sequence[tuple[int, int]]) -> Any:
    """(number of a weight, first, last) of rows, columns or elements, for each block."""
    parts = []
    for i, (height, length) in enumerate(shapes):
        whole, step = {
            "flat": (length, BLOCK),
            "rows": (height, max(1, BLOCK // length)),
            "columns": (length, program.lanes),
        }[program.layout]
        first = np.arange(0, whole, step)
        parts.append(
            np.stack([np.full_like(first, i), first, np.minimum(first + step, whole)], axis=1)
        )
    return np.ascontiguousarray(np.concatenate(parts), np.int64)


def _stride(program: Program, shapes: Sequence[tuple[int, int]]) -> int:
    """How many elements a row has at most, or as many columns as a vector has."""
    if program.layout == "columns":
        return max(height for height, _ in shapes) * program.lanes
    return max(length for _, length in shapes) if program.layout == "rows" else 0


def _threads(elements: int, blocks: int) -> int:
    return 1 if elements <= ALONE else min(torch.get_num_threads(), blocks)
