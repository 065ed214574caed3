"""The formulas of a regularizer as the text of a CPU kernel, in LLVM's language.

A kernel treats as many weights as a table of addresses names. It takes blocks of them, one after
the other, until none is left, so that any number of threads may run it at once. The elements of a
row are treated as vectors; where groups lie along columns, a vector is of neighbouring columns, all
of which are treated at once.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from penalize.torch.kernels.forms import Form, traced
from penalize.torch.kernels.llvm import (
    SIZES,
    Computed,
    Environment,
    Writer,
    in_memory,
    literal,
    splat,
    vector,
)
from penalize.torch.kernels.loops import Plan, Section
from penalize.torch.kernels.symbols import Extent, LoopTracer, Operation, Symbol, Turn

NEWTON, TURNS = 6, 60
"""How many turns start at the lower bound, before every other one bisects; how many there are."""


@dataclass(frozen=True)
class Routine:
    """What one kernel does."""

    form: Form
    stored: str
    """LLVM's name of the weights' type."""

    layout: str
    """"flat", where elements are treated one by one; "rows", or "columns"."""

    prox: str
    """As :func:`prox_of` says."""

    with_value: bool = False
    """Whether each block of a gradient also stores its part of Ω(w)."""

    @property
    def computed(self) -> str:
        """LLVM's name of the type that it computes in."""
        return "double" if self.stored == "double" else "float"

    @property
    def lanes(self) -> int:
        """How many elements a vector has: as many as a line of the cache."""
        return 64 // SIZES[self.computed]


class Printed(NamedTuple):
    """A kernel's text, and what it asks for."""

    text: str
    kept: int
    """How many numbers it keeps for each element of a row, or of some columns."""


@cache
def printed(routine: Routine) -> Printed:
    """The text of a kernel.

    Raises:
        NotTraceableError, TypeError, AttributeError: its formulas have no place in one.
    """
    xp = LoopTracer(2.0**-52 if routine.computed == "double" else 2.0**-23)
    out, value = traced(routine.form, routine.prox, xp, with_value=routine.with_value)
    turns = routine.prox in ("each", "root")  # it goes over a group many times
    inputs = ("w", "beside") if turns and routine.layout == "columns" else ()
    plan = Plan(xp.operations, [] if value is None else [value], out, inputs=inputs)
    kept = [name for section in plan.sections for name in section.kept]
    slots = {name: i for i, name in enumerate(kept)}
    return Printed(_Kernel(routine, plan, slots, value).text(), len(kept))


_HEAD = """\
define void @kernel(ptr %ws, ptr %besides, ptr %shapes, ptr %numbers, ptr %blocks, ptr %values, \
ptr %next, i64 %count, ptr %scratch, i64 %stride) {"""
"""What it is given: the addresses of the weights and of what is beside them, the rows of each and
their length, numbers for each; which part of which weight each block is, how many there are, and a
place that counts those that are taken; and where a thread keeps what it needs again.
"""

_Body = Callable[[str, str], None]
"""(place of an element in the weight, place of what is kept for it) → what is done there."""


class _Kernel(Writer):
    """The text of one kernel."""

    def __init__(
        self, routine: Routine, plan: Plan, slots: Mapping[str, int], value: Symbol | None
    ) -> None:
        super().__init__(routine.computed)
        self._routine, self._plan, self._slots, self._value = routine, plan, slots, value
        self._operations: ChainMap[str, Operation] = ChainMap(dict(plan.operations))
        self._stored: set[str] = set()
        """What has been kept for the elements of this row by now."""

        self._at: dict[str, str] = {}
        self._elements: Callable[[_Body], None] = lambda _: None
        self._total = ""

    def text(self) -> str:
        """All of it."""
        self.do("br label %take")
        self.label("take")
        block = self.let("atomicrmw add ptr %next, i64 1 monotonic")
        self.do(f"br i1 {self.let(f'icmp slt i64 {block}, %count')}, label %work, label %end")
        self.label("work")
        which, first, last = self._entries("blocks", "i64", block, 3)
        height, length = self._entries("shapes", "i64", which, 2)
        for name, table in (("w", "ws"), ("beside", "besides")):
            (address,) = self._entries(table, "i64", which, 1)
            self._at[name] = self.let(f"inttoptr i64 {address} to ptr")
        names = [f"s{i}" for i in range(self._routine.form.count)]
        names += ["factor", "scale", "offset", "root_size"]
        read = self._entries("numbers", "double", which, len(names))
        env = {name: Computed(x, Extent.NUMBER) for name, x in zip(names, read, strict=True)}
        if self._value is not None:
            self._total = self.place("double", literal(0.0, "double"))
        layout = {"flat": self._flat, "rows": self._rows, "columns": self._columns}
        layout[self._routine.layout](env, first, last, height, length)
        if self._value is not None:
            total = self.let(f"load double, ptr {self._total}")
            self.do(f"store double {total}, ptr {self._address('%values', 'double', block)}")
        self.do("br label %take")
        self.label("end")
        self.do("ret void")
        lines = [_HEAD, "entry:", *self.held, *self.lines, "}", *sorted(self.declared)]
        return "\n".join([*lines, ""])

    def _entries(self, table: str, kind: str, row: str, width: int) -> list[str]:
        """A row of a table."""
        start = self._address(f"%{table}", kind, self.let(f"mul i64 {row}, {width}"))
        return [
            self.let(f"load {kind}, ptr {self._address(start, kind, str(i))}") for i in range(width)
        ]

    def _address(self, base: str, kind: str, index: str) -> str:
        return self.let(f"getelementptr {kind}, ptr {base}, i64 {index}")

    # --- the layouts --------------------------------------------------------------------------

    def _flat(self, env: Environment, first: str, last: str, height: str, length: str) -> None:
        self._row(env, first, self.let(f"sub i64 {last}, {first}"))

    def _rows(self, env: Environment, first: str, last: str, height: str, length: str) -> None:
        self.loop(
            first, last, 1, lambda row: self._row(env, self.let(f"mul i64 {row}, {length}"), length)
        )

    def _row(self, env: Environment, start: str, length: str) -> None:
        lanes = self._routine.lanes
        whole = self.let(f"and i64 {length}, -{lanes}")

        def elements(body: _Body) -> None:
            def each(i: str) -> None:
                body(self.let(f"add i64 {start}, {i}"), i)

            self.lanes = lanes
            self.loop("0", whole, lanes, each)
            self.lanes = 1
            self.loop(whole, length, 1, each)

        self._whole(elements, env)

    def _columns(self, env: Environment, first: str, last: str, height: str, length: str) -> None:
        lanes, name = self._routine.lanes, self.fresh()

        def column(at: str) -> None:
            def each(row: str, body: _Body) -> None:
                index = self.let(f"add i64 {self.let(f'mul i64 {row}, {length}')}, {at}")
                body(index, self.let(f"mul i64 {row}, {self.lanes}"))

            self._whole(lambda body: self.loop("0", height, 1, lambda row: each(row, body)), env)

        count = self.let(f"sub i64 {last}, {first}")
        is_full = self.let(f"icmp eq i64 {count}, {lanes}")
        self.do(f"br i1 {is_full}, label %{name}.full, label %{name}.rest")
        self.label(f"{name}.full")
        self.lanes = self.row_lanes = lanes
        column(first)
        self.do(f"br label %{name}.over")
        self.label(f"{name}.rest")
        self.lanes = self.row_lanes = 1
        self.loop(first, last, 1, column)
        self.do(f"br label %{name}.over")
        self.label(f"{name}.over")

    # --- one row, or some columns ---------------------------------------------------------------

    def _whole(self, elements: Callable[[_Body], None], env: Environment) -> None:
        self._elements, self._stored = elements, set()
        known = dict(env)
        self._sections(self._plan, known)
        if self._value is None:
            return
        found = self.at(known[self._value.name], Extent.ROW)
        found = self._summed(found, self.row_lanes)
        if self.computed == "float":
            found = self.let(f"fpext float {found} to double")
        total = self.let(f"load double, ptr {self._total}")
        self.do(f"store double {self.let(f'fadd double {total}, {found}')}, ptr {self._total}")

    def _summed(self, x: str, lanes: int) -> str:
        """The sum of a vector's lanes."""
        if lanes == 1:
            return x
        start, kind = literal(-0.0, self.computed), vector(self.computed, lanes)
        return self.reduced("fadd", self.computed, kind, f"{self.computed} {start}, {kind} {x}")

    def _sections(self, plan: Plan, env: dict[str, Computed]) -> None:
        for section in plan.sections:
            for name in section.numbers:
                operation = plan.operations[name]
                values = [env[x.name] if isinstance(x, Symbol) else x for x in operation.operands]
                if operation.turn is None:
                    env[name] = self.operation(operation.name, values)
                else:
                    env[name] = self._settled(operation.turn, values, env)
            if section.loops:
                self._loop_over(plan, section, env)

    def _settled(self, turn: Turn, start: Sequence[Computed | float], env: Environment) -> Computed:
        """The lower of two bounds, when it moves no more."""
        kind, name = self.kind(Extent.ROW), self.fresh()
        low, high = (self.place(kind, self.at(x, Extent.ROW)) for x in start)
        count = self.place("i64", "0")
        self.do(f"br label %{name}.turn")
        self.label(f"{name}.turn")
        now = self.let(f"load i64, ptr {count}")
        is_late = self.let(f"icmp sge i64 {now}, {NEWTON}")
        is_even = self.let(f"icmp eq i64 {self.let(f'and i64 {now}, 1')}, 0")
        bisects = self.let(f"and i1 {is_late}, {is_even}")
        was = self.let(f"load {kind}, ptr {low}")
        inner = {
            **env,
            turn.low.name: Computed(was, Extent.ROW),
            turn.high.name: Computed(self.let(f"load {kind}, ptr {high}"), Extent.ROW),
            turn.bisects.name: Computed(bisects, Extent.NUMBER, is_condition=True),
        }
        self._operations = self._operations.new_child(turn.operations)
        self._sections(Plan(turn.operations, turn.closer, keeps=False), inner)
        self._operations = self._operations.parents
        ends = [inner[x.name] if isinstance(x, Symbol) else x for x in turn.closer]
        for place, end in zip((low, high), ends, strict=True):
            self.do(f"store {kind} {self.at(end, Extent.ROW)}, ptr {place}")
        # Newton's method has settled where a step is so small that the next would be lost in
        # rounding: it squares the error. NaN has settled, too.
        moved = self.let(f"fsub {kind} {self.at(ends[0], Extent.ROW)}, {was}")
        small = 2.0**-35 if self.computed == "double" else 2.0**-15
        least = self.let(f"fmul {kind} {was}, {splat(literal(small, self.computed), kind)}")
        moves = self.let(f"fcmp ogt {kind} {moved}, {least}")
        if self.row_lanes > 1:
            bits = self.kind(Extent.ROW, "i1")
            moves = self.reduced("or", "i1", bits, f"{bits} {moves}")
        following = self.let(f"add i64 {now}, 1")
        self.do(f"store i64 {following}, ptr {count}")
        goes_on = self.let(f"or i1 {moves}, {bisects}")
        may = self.let(f"icmp slt i64 {following}, {TURNS}")
        goes_on = self.let(f"and i1 {goes_on}, {may}")
        self.do(f"br i1 {goes_on}, label %{name}.turn, label %{name}.settled")
        self.label(f"{name}.settled")
        return Computed(self.let(f"load {kind}, ptr {low}"), Extent.ROW)

    def _loop_over(self, plan: Plan, section: Section, env: dict[str, Computed]) -> None:
        """One loop over the elements, and the sums that it gives."""
        zero = literal(0.0, self.computed)
        # Along a row there is one sum of vectors, and one of what is left over.
        in_a_row = self._routine.layout != "columns"
        all_lanes = {self._routine.lanes, 1} if in_a_row else {self.lanes}
        sums = {
            name: {
                lanes: self.place(kind, splat(zero, kind))
                for lanes in all_lanes
                for kind in [vector(self.computed, lanes)]
            }
            for name in section.sums
        }

        def body(index: str, kept_at: str) -> None:
            known, kind = dict(env), self.kind(Extent.TILE)
            for name, places in sums.items():
                (x,) = plan.operations[name].operands
                assert isinstance(x, Symbol)
                term = self._element(x.name, known, index, kept_at)
                place = places[self.lanes]
                now = self.let(f"load {kind}, ptr {place}")
                added = self.let(f"fadd reassoc {kind} {now}, {self.at(term, Extent.TILE)}")
                self.do(f"store {kind} {added}, ptr {place}")
            for name in section.kept:
                found = self._element(name, known, index, kept_at)
                self.do(f"store {kind} {found.name}, ptr {self._kept(name, kept_at)}, align 4")
            if section.stores and plan.out is not None:
                out = self._element(plan.out.name, known, index, kept_at)
                place = self._place(self._at["w" if self._routine.prox else "beside"], index)
                self.write(self.at(out, Extent.TILE), place, self._routine.stored)

        self._elements(body)
        self._stored.update(section.kept)
        for name, places in sums.items():
            parts = []
            for lanes, place in sorted(places.items(), reverse=True):
                part = self.let(f"load {vector(self.computed, lanes)}, ptr {place}")
                parts.append(part if lanes == self.row_lanes else self._summed(part, lanes))
            kind = self.kind(Extent.ROW)
            total = parts[0] if len(parts) == 1 else self.let(f"fadd {kind} {', '.join(parts)}")
            env[name] = Computed(total, Extent.ROW)

    # --- one element, or a vector of them -------------------------------------------------------

    def _element(self, name: str, known: dict[str, Computed], index: str, kept_at: str) -> Computed:
        """A value at an element, computed with all that it needs."""
        if name in known:
            return known[name]
        if name in self._stored:
            kind, place = self.kind(Extent.TILE), self._kept(name, kept_at)
            known[name] = Computed(self.let(f"load {kind}, ptr {place}, align 4"), Extent.TILE)
        elif name in self._at:
            place = self._place(self._at[name], index)
            known[name] = Computed(self.read(place, self._routine.stored), Extent.TILE)
        else:
            operation = self._operations[name]
            operands = [
                self._element(x.name, known, index, kept_at) if isinstance(x, Symbol) else x
                for x in operation.operands
            ]
            known[name] = self.operation(operation.name, operands)
        return known[name]

    def _kept(self, name: str, kept_at: str) -> str:
        start = self.let(f"mul i64 %stride, {self._slots[name]}")
        return self._address("%scratch", self.computed, self.let(f"add i64 {start}, {kept_at}"))

    def _place(self, base: str, index: str) -> str:
        return self._address(base, in_memory(self._routine.stored), index)
