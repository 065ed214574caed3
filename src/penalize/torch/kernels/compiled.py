"""Weights on the CPU: one compiled kernel for all of one form and type.

As on the GPU, a kernel is generated from a regularizer's own functions, and finds weights by a
table of addresses and strengths by a table of numbers: another strength compiles nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from penalize.regularizers.base import Regularizer
from penalize.steps import Taken
from penalize.torch.kernels import native, triton
from penalize.torch.kernels.cpu import Buffers
from penalize.torch.kernels.forms import form_of, prox_of
from penalize.torch.kernels.jobs import Job, Note, Offer, Penalizing
from penalize.torch.kernels.launch import Launcher, Layout, addresses_of, are_in_memory
from penalize.torch.kernels.printer import printed
from penalize.torch.kernels.routines import Routine
from penalize.torch.kernels.rows import columns_of, rows_of
from penalize.torch.kernels.symbols import NotTraceableError
from penalize.torch.kernels.work import Work

LEAST = 2**20
"""How many elements the penalized weights must have together, so that compiling pays."""

LONGEST = {"rows": 2**16, "columns": 2**14}
"""The longest row, or column, that a thread treats: some of them have to fit the cache."""

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


@dataclass
class Compiled(Penalizing):
    """Weights of one form and type, by one kernel."""

    path = "compiled"

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
        found = routine_for(layout, work, prox_of(work.step))
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
        self._launcher = Launcher(self.routine, self.layouts, self.shapes)
        self._places: dict[str, Any] | None = None

    def fits(self, ws: list[Tensor], besides: list[Tensor]) -> bool:
        self._places = {"w": addresses_of(ws), "beside": addresses_of(besides)}
        return all(0 not in addresses for addresses in self._places.values())

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
        self, routine: Routine, ws: list[Tensor], besides: list[Tensor], factors: tuple[Any, ...]
    ) -> Tensor:
        """What each block says of the value."""
        arrays = {"w": ws, "beside": besides}
        places, self._places = self._places, None  # those that were looked up for this run
        return self._launcher.run(routine, arrays, self._launcher.numbers(factors), places)


def _why_not_in_memory(xs: Sequence[Tensor]) -> str:
    """Why elements, of which there are some, are not those in memory; empty where they are."""
    if any(map(Tensor.is_neg, xs)):
        return "what is in memory has the other sign"
    return "" if are_in_memory(xs) else "it is not in memory"


def layout_of(regularizer: Regularizer, ndim: int) -> Layout | None:
    """The rows of a weight, where it treats these one by one; else its columns."""
    return rows_of(regularizer, ndim) or columns_of(regularizer, ndim)


def _is_decay(work: Work) -> bool:
    """Whether a weight is to be multiplied, which is rounded as AdamW does it."""
    l1, _, rest = work.regularizer.split()
    return work.step is None and work.beside is work.w and not (l1 or rest)


def routine_for(layout: Layout | None, work: Work, task: str) -> tuple[Routine, str] | str:
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
        kind = form, _TYPES[w.dtype], layout.layout
        routine = Routine(*kind, task, average=work.average)
        source = printed(routine)
    except (NotTraceableError, TypeError, AttributeError) as error:
        return f"its formula has no place in a kernel: {error}"
    try:
        return routine, native.native(source.text).note
    except Exception as error:  # noqa: BLE001  # whatever it is, there are other paths
        return f"it could not be compiled: {error}"
