"""The formulas of a regularizer as the text of a CPU kernel, in LLVM's language.

A kernel treats as many weights as a table of addresses names. It takes blocks of them, one after
the other, until none is left, so that any number of threads may run it at once. The elements of a
row are treated as vectors; where groups lie along columns, a vector is of neighbouring columns, all
of which are treated at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from penalize.torch.kernels.elements import Elements
from penalize.torch.kernels.forms import Outline
from penalize.torch.kernels.llvm import (
    SIZES,
    Computed,
    Environment,
    literal,
    splat,
    vector,
)
from penalize.torch.kernels.loops import Plan, Section
from penalize.torch.kernels.routines import Routine, plan_of
from penalize.torch.kernels.symbols import Extent, LoopTracer, Symbol, Turn

NEWTON, TURNS = 6, 60
"""How many turns start at the lower bound, before every other one bisects; how many there are."""


class Printed(NamedTuple):
    """A kernel's text, and what it asks for."""

    text: str
    kept: int
    """How many numbers it keeps for each element of a row, or of some columns."""

    outline: Outline


@cache
def printed(routine: Routine) -> Printed:
    """The text of a kernel.

    Raises:
        NotTraceableError, TypeError, AttributeError: its formulas have no place in one.
    """
    xp = LoopTracer(2.0**-52 if routine.computed == "double" else 2.0**-23)
    outline = routine.outline(xp)
    turns = routine.task in ("each", "root")  # it goes over a group many times
    inputs = ("w", "beside") if turns and routine.layout == "columns" else ()
    plan = plan_of(outline, xp.operations, inputs)
    kept = [name for section in plan.sections for name in section.kept]
    slots = {name: i for i, name in enumerate(kept)}
    return Printed(_Kernel(routine, plan, slots, outline).text(), len(kept), outline)


_TEAM = """\
define void @kernel(ptr %work) {
entry:
  %number = atomicrmw add ptr %work, i64 1 monotonic
  %threads.at = getelementptr i64, ptr %work, i64 1
  %threads = load i64, ptr %threads.at
  %is.one = icmp slt i64 %number, %threads
  br i1 %is.one, label %begin, label %end
begin:
  %arrays.at = getelementptr i64, ptr %work, i64 2
  %arrays = load ptr, ptr %arrays.at
  %shapes.at = getelementptr i64, ptr %work, i64 3
  %shapes = load ptr, ptr %shapes.at
  %numbers.at = getelementptr i64, ptr %work, i64 4
  %numbers = load ptr, ptr %numbers.at
  %rooms.at = getelementptr i64, ptr %work, i64 5
  %rooms = load ptr, ptr %rooms.at
  %bytes.at = getelementptr i64, ptr %work, i64 6
  %bytes = load i64, ptr %bytes.at
  %stride.at = getelementptr i64, ptr %work, i64 7
  %stride = load i64, ptr %stride.at
  %skipped = mul i64 %number, %bytes
  %room = getelementptr i8, ptr %rooms, i64 %skipped
  br label %turn
turn:
  %turns = phi i64 [ 0, %begin ], [ %turns.next, %turn ]
  %sum = add i64 %number, %turns
  %which = urem i64 %sum, %threads
  %before = mul i64 %which, 4
  %first = add i64 %before, 8
  %part = getelementptr i64, ptr %work, i64 %first
  %blocks = load ptr, ptr %part
  %values.at = getelementptr i64, ptr %part, i64 1
  %values = load ptr, ptr %values.at
  %next = getelementptr i64, ptr %part, i64 2
  %count.at = getelementptr i64, ptr %part, i64 3
  %count = load i64, ptr %count.at
  call void @part(ptr %arrays, ptr %shapes, ptr %numbers, ptr %blocks, ptr %values, ptr %next, \
i64 %count, ptr %room, i64 %stride)
  %turns.next = add i64 %turns, 1
  %goes.on = icmp slt i64 %turns.next, %threads
  br i1 %goes.on, label %turn, label %end
end:
  ret void
}
"""
"""What each thread runs. The work is integers: how many threads have begun, and how many there are
to be; the addresses that all have in common, and a room for each; then of each part its blocks, its
values, how many of its blocks are taken, and how many there are. A thread begins with the part of
its number, and goes on with what is left of the others.
"""

_HEAD = """\
define internal void @part(ptr %arrays, ptr %shapes, ptr %numbers, ptr %blocks, ptr %values, \
ptr %next, i64 %count, ptr %scratch, i64 %stride) {"""
"""What it is given: for each weight the addresses of its arrays, its rows and their length, and
numbers; which part of which weight each block is, how many there are, and a
place that counts those that are taken; and where a thread keeps what it needs again.
"""

_Body = Callable[[str, str], None]
"""(place of an element in the weight, place of what is kept for it) → what is done there."""


class _Kernel(Elements):
    """The text of one kernel."""

    def __init__(
        self, routine: Routine, plan: Plan, slots: Mapping[str, int], outline: Outline
    ) -> None:
        super().__init__(routine.computed, outline, slots, plan.operations)
        self._routine, self._plan = routine, plan
        self._elements: Callable[[_Body], None] = lambda _: None
        self._totals: list[str] = []
        self._many = ""
        """How many rows, or columns, the weight has."""

    def text(self) -> str:
        """All of it."""
        self.do("br label %take")
        self.label("take")
        block = self.let("atomicrmw add ptr %next, i64 1 monotonic")
        self.do(f"br i1 {self.let(f'icmp slt i64 {block}, %count')}, label %work, label %end")
        self.label("work")
        which, first, last = self.entries("blocks", "i64", block, 3)
        height, length = self.entries("shapes", "i64", which, 2)
        addresses = self.entries("arrays", "i64", which, len(self.outline.arrays))
        for name, address in zip(self.outline.arrays, addresses, strict=True):
            self.at_address[name] = self.let(f"inttoptr i64 {address} to ptr")
        names = [f"s{i}" for i in range(self._routine.form.count)]
        names += [*self.outline.numbers, "root_size"]
        read = self.entries("numbers", "double", which, len(names))
        env = {name: Computed(x, Extent.NUMBER) for name, x in zip(names, read, strict=True)}
        count = len(self.outline.sums)
        self._totals = [self.place("double", literal(0.0, "double")) for _ in range(count)]
        self._many = {"flat": "0", "rows": height, "columns": length}[self._routine.layout]
        layout = {"flat": self._flat, "rows": self._rows, "columns": self._columns}
        layout[self._routine.layout](env, first, last, height, length)
        start = self.address("%values", "double", self.let(f"mul i64 {block}, {count}"))
        for i, place in enumerate(self._totals):
            total = self.let(f"load double, ptr {place}")
            self.do(f"store double {total}, ptr {self.address(start, 'double', str(i))}")
        self.do("br label %take")
        self.label("end")
        self.do("ret void")
        lines = [_HEAD, "entry:", *self.held, *self.lines, "}", *sorted(self.declared)]
        return "\n".join([*lines, _TEAM])

    # --- the layouts --------------------------------------------------------------------------

    def _flat(self, env: Environment, first: str, last: str, height: str, length: str) -> None:
        self._row(env, "0", first, self.let(f"sub i64 {last}, {first}"))

    def _rows(self, env: Environment, first: str, last: str, height: str, length: str) -> None:
        def row(at: str) -> None:
            self._row(env, at, self.let(f"mul i64 {at}, {length}"), length)

        self.loop(first, last, 1, row)

    def _row(self, env: Environment, at: str, start: str, length: str) -> None:
        lanes = self._routine.lanes
        whole = self.let(f"and i64 {length}, -{lanes}")

        def elements(body: _Body) -> None:
            def each(i: str) -> None:
                body(self.let(f"add i64 {start}, {i}"), i)

            self.lanes = lanes
            self.loop("0", whole, lanes, each)
            self.lanes = 1
            self.loop(whole, length, 1, each)

        self._whole(elements, env, at)

    def _columns(self, env: Environment, first: str, last: str, height: str, length: str) -> None:
        lanes, name = self._routine.lanes, self.fresh()

        def column(at: str) -> None:
            def each(row: str, body: _Body) -> None:
                index = self.let(f"add i64 {self.let(f'mul i64 {row}, {length}')}, {at}")
                body(index, self.let(f"mul i64 {row}, {self.lanes}"))

            def elements(body: _Body) -> None:
                self.loop("0", height, 1, lambda row: each(row, body))

            self._whole(elements, env, at)

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

    def _whole(self, elements: Callable[[_Body], None], env: Environment, at: str) -> None:
        self._elements, self.kept_now = elements, set()
        known, kind = dict(env), self.kind(Extent.ROW)
        aligned = f"align {SIZES[self.computed]}"
        again = {x.name: self._again(i, at) for i, x in enumerate(self.outline.again)}
        if not self.outline.keeps:
            for name, place in again.items():
                found = self.let(f"load {kind}, ptr {place}, {aligned}")
                known[name] = Computed(found, Extent.ROW)
        self._sections(self._plan, known)
        if self.outline.keeps:
            for name, place in again.items():
                found = self.at(known[name], Extent.ROW)
                self.do(f"store {kind} {found}, ptr {place}, {aligned}")
        for place, wanted in zip(self._totals, self.outline.sums, strict=True):
            found = self.at(known[wanted.name], Extent.ROW)
            found = self._summed(found, self.row_lanes)
            if self.computed == "float":
                found = self.let(f"fpext float {found} to double")
            total = self.let(f"load double, ptr {place}")
            self.do(f"store double {self.let(f'fadd double {total}, {found}')}, ptr {place}")

    def _again(self, number: int, at: str) -> str:
        """The place of a sum over a row that is needed again."""
        start = self.let(f"mul i64 {self._many}, {number}")
        return self.address(
            self.at_address["sums"], self.computed, self.let(f"add i64 {start}, {at}")
        )

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
        self.operations = self.operations.new_child(turn.operations)
        self._sections(Plan(turn.operations, turn.closer, keeps=False), inner)
        self.operations = self.operations.parents
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
                term = self.element(x.name, known, index, kept_at)
                place = places[self.lanes]
                now = self.let(f"load {kind}, ptr {place}")
                added = self.let(f"fadd reassoc {kind} {now}, {self.at(term, Extent.TILE)}")
                self.do(f"store {kind} {added}, ptr {place}")
            for name in section.kept:
                found = self.element(name, known, index, kept_at)
                self.do(f"store {kind} {found.name}, ptr {self.kept_place(name, kept_at)}, align 4")
            if section.stores:
                self.store(known, index, kept_at)

        self._elements(body)
        self.kept_now.update(section.kept)
        for name, places in sums.items():
            parts = []
            for lanes, place in sorted(places.items(), reverse=True):
                part = self.let(f"load {vector(self.computed, lanes)}, ptr {place}")
                parts.append(part if lanes == self.row_lanes else self._summed(part, lanes))
            kind = self.kind(Extent.ROW)
            total = parts[0] if len(parts) == 1 else self.let(f"fadd {kind} {', '.join(parts)}")
            env[name] = Computed(total, Extent.ROW)
