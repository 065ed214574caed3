"""Weights on a GPU: one launch for all of one type, whatever their number and their strengths.

A kernel is generated for each form of regularizer from its own functions (:mod:`symbols`). It finds
a weight by a table of addresses. Strengths, scales and steps are numbers in a second table, so
that neither another strength nor another learning rate compiles anything. Nothing waits for the
device: what only it knows, such as a capturable optimizer's rate, is copied there.
"""

from __future__ import annotations

import importlib.util
import linecache
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from penalize.steps import Taken
from penalize.torch.kernels.cpu import Buffers
from penalize.torch.kernels.forms import Form, form_of, prox_of, traced
from penalize.torch.kernels.jobs import Job, Offer, Penalizing
from penalize.torch.kernels.rows import Rows, rows_of
from penalize.torch.kernels.symbols import (
    Extent,
    NotTraceableError,
    Operation,
    Symbol,
    Tracer,
    text,
)
from penalize.torch.kernels.work import Work

LONGEST = 2**13
"""The longest row that one program holds."""

BLOCK = 1024
"""How many elements one program treats."""

_TYPES = {
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
    torch.float32: "float32",
    torch.float64: "float64",
}


@cache
def is_available() -> bool:
    """Whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None


_interpreted: list[None] = []


@contextmanager
def interpreted() -> Iterator[None]:
    """Within the block weights on the CPU take this path, for tests by Triton's interpreter.

    It needs the environment variable ``TRITON_INTERPRET=1`` from the start of the process.
    """
    _interpreted.append(None)
    try:
        yield
    finally:
        _interpreted.pop()


def acts_on(device: torch.device) -> bool:
    """Whether weights on a device take this path."""
    return device.type == "cuda" or (device.type == "cpu" and bool(_interpreted))


# --- what kernels have in common ----------------------------------------------------------------


@dataclass(frozen=True)
class Program:
    """What one kernel does."""

    form: Form
    dtype: torch.dtype
    length: int
    """Of a tile: a power of two. Rows are no longer; where there are none, they are cut so."""

    prox: str
    """As :func:`prox_of` says."""

    with_value: bool = False
    """Whether each program of a gradient also stores its part of Ω(w)."""


@cache
def compiled(program: Program) -> Any:
    """The kernel. Raises :class:`NotTraceableError` where there is none."""
    source = source_of(program)
    name = f"<penalize kernel {abs(hash(source)):x}>"
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    made: dict[str, Any] = {"__name__": "penalize.torch.kernels.generated"}
    exec(compile(source, name, "exec"), made)
    return made["kernel"]


@cache
def source_of(program: Program) -> str:
    """The text of the kernel. Raises :class:`NotTraceableError` where there is none."""
    wide = "float64" if program.dtype is torch.float64 else "float32"
    eps = torch.finfo(torch.float64 if wide == "float64" else torch.float32).eps
    xp, form = Tracer(program.length, eps), program.form
    out, value = traced(form, program.prox, xp, with_value=program.with_value)
    count = form.count
    lines = [
        *(f"s{i} = tl.load(numbers + {i} * count + which)" for i in range(count)),
        *(
            f"{name} = tl.load(numbers + {count + i} * count + which)"
            for i, name in enumerate(("factor", "scale", "offset"))
        ),
        *(f"{name} = {_spelled(each)}" for name, each in xp.operations.items()),
    ]
    stored = "w_at" if program.prox else "beside_at"
    typed = _TYPES[program.dtype]
    if value is not None:
        lines.append(f"tl.store(values + block, {text(value)})")
    lines.append(f"tl.store({stored} + at, {out.name}.to(tl.{typed}), mask=inside)")
    return _HEAD.format(wide=wide, typed=typed) + "".join(f"    {line}\n" for line in lines)


_WORDS = {
    "negative": "-{}",
    "number": "{} + 0 * one",  # a number that is read, so that it is a symbol as an array would be
    "abs": "tl.abs({})",
    "sqrt": "tl.sqrt({})",
    "log": "tl.log({})",
    "cos": "tl.cos({})",
    "maximum": "tl.maximum({}, {})",
    "where": "tl.where({}, {}, {})",
    "sum": "tl.sum(tl.where(inside, {}, 0.0), axis=1, keep_dims=True)",
}


def _spelled(operation: Operation) -> str:
    """An operation in Triton's language."""
    name, (first, *_) = operation.name, operation.operands
    words = _WORDS.get(name, f"{{}} {name} {{}}")
    if name == "total":
        is_tile = isinstance(first, Symbol) and first.level is Extent.TILE
        words = f"tl.sum(tl.where({'inside' if is_tile else 'in_rows'}, {{}}, 0.0))"
    return words.format(*map(text, operation.operands))


_HEAD = """\
import triton
import triton.language as tl


@triton.jit
def kernel(places, numbers, blocks, values, count, ROWS: tl.constexpr, LENGTH: tl.constexpr):
    block = tl.program_id(0)
    which = tl.load(blocks + 2 * block)
    first = tl.load(blocks + 2 * block + 1)
    w_at = tl.load(places + which).to(tl.pointer_type(tl.{typed}))
    beside_at = tl.load(places + count + which).to(tl.pointer_type(tl.{typed}))
    height = tl.load(places + 2 * count + which)
    length = tl.load(places + 3 * count + which)
    row = first + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, LENGTH)[None, :]
    in_rows = row < height
    at = row * length + column
    inside = in_rows & (column < length) & (at < tl.load(places + 4 * count + which))
    w = tl.load(w_at + at, mask=inside, other=0.0).to(tl.{wide})
    beside = tl.load(beside_at + at, mask=inside, other=0.0).to(tl.{wide})
    one = tl.load(numbers) * 0 + 1
"""


# --- the job ------------------------------------------------------------------------------------


@dataclass
class Triton(Penalizing):
    """Weights of one form and type, by one kernel."""

    path = "triton"

    rows: Sequence[Rows]
    program: Program
    _tables: dict[str, tuple[Any, Tensor]] = field(default_factory=dict)
    _strengths: tuple[Any, list[list[float]]] | None = None

    @classmethod
    def offer(cls, work: Work, buffers: Buffers) -> Offer | str:
        if not acts_on(work.w.device):
            return ""
        program = program_for(
            rows_of(work.regularizer, work.w.ndim), work.w, work.beside, work.step
        )
        if isinstance(program, str):
            return program

        def make(numbers: Sequence[int], works: Sequence[Work]) -> Iterator[Job]:
            found = [rows_of(each.regularizer, each.w.ndim) for each in works]
            yield cls(numbers, [rows for rows in found if rows is not None], program)

        return Offer((cls, program, *work.kind), make)

    def add(self, ws: list[Tensor], tos: list[Tensor], scale: float | Tensor) -> None:
        self._launch(self.program, ws, tos, [(scale, 1.0, 0.0)] * len(ws))

    def value_and_add(self, ws: list[Tensor], tos: list[Tensor], scale: float | Tensor) -> Tensor:
        program = replace(self.program, with_value=True)
        return self._launch(program, ws, tos, [(scale, 1.0, 0.0)] * len(ws)).double().sum()

    def shrink(self, ws: list[Tensor], steps: Sequence[Taken]) -> None:
        besides = [w if s.second is None else s.second for w, s in zip(ws, steps, strict=True)]
        self._launch(self.program, ws, besides, [(s.factor, s.scale, s.offset) for s in steps])

    def _launch(
        self,
        program: Program,
        ws: list[Tensor],
        besides: list[Tensor],
        factors: Sequence[Any],
    ) -> Tensor:
        """What each program says of the value."""
        device, shapes = ws[0].device, [self._shape(i, w) for i, w in enumerate(ws)]
        addresses = [
            *(w.data_ptr() for w in ws),
            *(beside.data_ptr() for beside in besides),
            *(height for height, _ in shapes),
            *(length for _, length in shapes),
            *(w.numel() for w in ws),
        ]
        height = max(1, BLOCK // self.program.length)
        blocks = self._table("blocks", shapes, torch.int64, device, lambda: [
            x for i, (rows, _) in enumerate(shapes) for first in range(0, rows, height)
            for x in (i, first)
        ])  # fmt: skip
        numbers = self._numbers(shapes, factors, device)
        kernel = compiled(program)
        grid = (len(blocks) // 2,)
        places = self._table("places", addresses, torch.int64, device)
        values = numbers.new_empty(grid[0] if program.with_value else 0)
        kernel[grid](places, numbers, blocks, values, len(ws), ROWS=height, LENGTH=program.length)
        return values

    def _shape(self, i: int, w: Tensor) -> tuple[int, int]:
        """How many rows, and their length; what has none is cut into rows of a tile's length."""
        rows, count = self.rows[i], w.numel()
        if not rows.is_flat:
            height = math.prod(w.shape[: rows.leading])
            return height, count // height
        length = self.program.length
        return (1, count) if count <= length else (-(-count // length), length)

    def _numbers(self, shapes: Any, factors: Sequence[Any], device: torch.device) -> Tensor:
        """Strengths, factor, scale and offset of each weight, number by number."""
        wide = torch.float64 if self.program.dtype is torch.float64 else torch.float32
        if self._strengths is None or self._strengths[0] != shapes:
            pairs = zip(self.rows, shapes, strict=True)
            self._strengths = (
                shapes,
                [form_of(rows.regularizer, length)[1] for rows, (_, length) in pairs],
            )
        columns = [
            [*strengths, *factor]
            for strengths, factor in zip(self._strengths[1], factors, strict=True)
        ]
        flat = [x for line in zip(*columns, strict=True) for x in line]
        if not any(isinstance(x, Tensor) for x in flat):
            return self._table("numbers", flat, wide, device)
        filled = [
            x.to(device, wide)
            if isinstance(x, Tensor)
            else torch.full((), x, dtype=wide, device=device)
            for x in flat
        ]
        return torch.stack(filled)

    def _table(
        self,
        name: str,
        content: Any,
        dtype: torch.dtype,
        device: torch.device,
        make: Callable[[], Any] | None = None,
    ) -> Tensor:
        """A list on the device; copied there again only if something in it has changed."""
        held = self._tables.get(name)
        if held is None or held[0] != content:
            made = torch.tensor(content if make is None else make(), dtype=dtype)
            if device.type == "cuda":
                made = made.pin_memory().to(device, non_blocking=True)
            held = self._tables[name] = content, made
        return held[1]


def program_for(rows: Rows | None, w: Tensor, beside: Tensor, taken: Taken | None) -> Program | str:
    """What treats a weight with others like it, or why there is nothing."""
    if not is_available():
        return "Triton is not installed"
    if w.dtype not in _TYPES or rows is None or not rows.can_view(w, beside):
        return "it cannot be seen as rows that are penalized one by one"
    length = 0 if rows.is_flat else w.numel() // math.prod(w.shape[: rows.leading])
    if length > LONGEST:
        return f"its rows are longer than {LONGEST:,}"
    tile = BLOCK if rows.is_flat else 1 << max(length - 1, 0).bit_length()
    program = Program(form_of(rows.regularizer, length)[0], w.dtype, tile, prox_of(taken))
    try:
        source_of(program)
    except (NotTraceableError, TypeError, AttributeError) as error:
        return f"its formula has no place in a kernel: {error}"
    return program
