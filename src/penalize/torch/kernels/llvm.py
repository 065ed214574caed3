"""Operations as lines of LLVM's language, on numbers and on vectors of them."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from penalize.torch.kernels.symbols import Extent


class Computed(NamedTuple):
    """What has been computed: a name or a literal."""

    name: str
    level: Extent
    is_condition: bool = False


Environment = Mapping[str, Computed]
"""What has been computed, by its name."""

_COMPARED = {"<": "olt", "<=": "ole", ">": "ogt", ">=": "oge", "==": "oeq"}
_ARITHMETIC = {"+": "fadd", "-": "fsub", "*": "fmul", "/": "fdiv"}
_FUNCTIONS = {"abs": "fabs", "sqrt": "sqrt", "log": "log", "cos": "cos"}


class Writer:
    """Lines, with fresh names; types are those of so many lanes."""

    def __init__(self, computed: str) -> None:
        self.computed = computed
        self.lines: list[str] = []
        self.held: list[str] = []
        """The lines that hold a place on the stack, which stand before all others."""

        self.declared: set[str] = set()
        self.lanes = 1
        """Of elements, where the next line stands."""

        self.row_lanes = 1
        self._count = 0

    def fresh(self) -> str:
        self._count += 1
        return f"x{self._count}"

    def let(self, expression: str) -> str:
        name = f"%{self.fresh()}"
        self.lines.append(f"  {name} = {expression}")
        return name

    def do(self, statement: str) -> None:
        self.lines.append(f"  {statement}")

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")

    def place(self, kind: str, start: str) -> str:
        """A place on the stack, with something in it."""
        name = f"%{self.fresh()}"
        self.held.append(f"  {name} = alloca {kind}")
        self.do(f"store {kind} {start}, ptr {name}")
        return name

    def call(self, name: str, kind: str, *operands: str) -> str:
        """A function of LLVM's, for numbers or vectors of them."""
        suffix = {"float": "f32", "double": "f64"}[kind.strip("<>").split(" x ")[-1]]
        if "x" in kind:
            suffix = f"v{kind.strip('<>').split(' x ')[0]}{suffix}"
        function = f"@llvm.{name}.{suffix}"
        kinds = ", ".join([kind] * len(operands))
        self.declared.add(f"declare {kind} {function}({kinds})")
        arguments = ", ".join(f"{kind} {x}" for x in operands)
        return self.let(f"call {kind} {function}({arguments})")

    def reduced(self, name: str, element: str, kind: str, operands: str) -> str:
        """What the lanes of a vector come to together."""
        short = {"float": "f32", "double": "f64"}.get(element, element)
        function = f"@llvm.vector.reduce.{name}.v{kind.strip('<>').split(' x ')[0]}{short}"
        kinds = f"{element}, {kind}" if name == "fadd" else kind
        self.declared.add(f"declare {element} {function}({kinds})")
        flags = "reassoc " if name == "fadd" else ""
        return self.let(f"call {flags}{element} {function}({operands})")

    def loop(self, start: str, stop: str, step: int, body: Callable[[str], None]) -> None:
        i, name = self.place("i64", start), self.fresh()
        self.do(f"br label %{name}.head")
        self.label(f"{name}.head")
        now = self.let(f"load i64, ptr {i}")
        more = self.let(f"icmp slt i64 {now}, {stop}")
        self.do(f"br i1 {more}, label %{name}.body, label %{name}.done")
        self.label(f"{name}.body")
        body(now)
        self.do(f"store i64 {self.let(f'add i64 {now}, {step}')}, ptr {i}")
        self.do(f"br label %{name}.head")
        self.label(f"{name}.done")

    # --- memory -----------------------------------------------------------------------------

    def read(self, place: str, stored: str) -> str:
        """Elements of a type, in the type that is computed in."""
        kind, held = self.kind(Extent.TILE), self.kind(Extent.TILE, in_memory(stored))
        x = self.let(f"load {held}, ptr {place}, align {SIZES[stored]}")
        if stored == "half":
            return self.let(f"fpext {held} {x} to {kind}")
        if stored == "bfloat":  # the upper half of a float
            bits = self.kind(Extent.TILE, "i32")
            x = self.let(f"zext {held} {x} to {bits}")
            x = self.let(f"shl {bits} {x}, {splat('16', bits)}")
            return self.let(f"bitcast {bits} {x} to {kind}")
        return x

    def write(self, x: str, place: str, stored: str) -> None:
        """The same back."""
        kind, held = self.kind(Extent.TILE), self.kind(Extent.TILE, in_memory(stored))
        if stored == "half":
            x = self.let(f"fptrunc {kind} {x} to {held}")
        if stored == "bfloat":
            x = self._rounded(x, kind)
        self.do(f"store {held} {x}, ptr {place}, align {SIZES[stored]}")

    def read_bit(self, place: str, bit: int) -> Computed:
        """One bit of bytes."""
        kind = self.kind(Extent.TILE, "i8")
        x = self.let(f"load {kind}, ptr {place}, align 1")
        x = self.let(f"and {kind} {x}, {splat(str(1 << bit), kind)}")
        x = self.let(f"icmp ne {kind} {x}, {splat('0', kind)}")
        return Computed(x, Extent.TILE, is_condition=True)

    def write_bits(self, xs: Sequence[str], place: str) -> None:
        """Bytes, of a condition for each bit."""
        kind, condition = self.kind(Extent.TILE, "i8"), self.kind(Extent.TILE, "i1")
        none = found = splat("0", kind)
        for bit, x in enumerate(xs):
            of = splat(str(1 << bit), kind)
            value = self.let(f"select {condition} {x}, {kind} {of}, {kind} {none}")
            found = self.let(f"or {kind} {found}, {value}")
        self.do(f"store {kind} {found}, ptr {place}, align 1")

    def _rounded(self, x: str, kind: str) -> str:
        """The upper half of a float, rounded to the nearest, to even on a tie."""
        bits, half = self.kind(Extent.TILE, "i32"), self.kind(Extent.TILE, "i16")
        lost = self.let(f"fcmp uno {kind} {x}, {x}")
        x = self.let(f"bitcast {kind} {x} to {bits}")
        upper = self.let(f"lshr {bits} {x}, {splat('16', bits)}")
        odd = self.let(f"and {bits} {upper}, {splat('1', bits)}")
        more = self.let(f"add {bits} {odd}, {splat('32767', bits)}")
        x = self.let(f"add {bits} {x}, {more}")
        nan = splat(str(0x7FC00000), bits)
        x = self.let(f"select {self.kind(Extent.TILE, 'i1')} {lost}, {bits} {nan}, {bits} {x}")
        x = self.let(f"lshr {bits} {x}, {splat('16', bits)}")
        return self.let(f"trunc {bits} {x} to {half}")

    # --- types ------------------------------------------------------------------------------

    def kind(self, level: Extent, element: str = "") -> str:
        """The type of a value that is computed so often."""
        if level is Extent.NUMBER:
            return element or "double"
        return vector(element or self.computed, self.lanes_at(level))

    def lanes_at(self, level: Extent) -> int:
        return (1, self.row_lanes, self.lanes)[level]

    def at(self, x: Computed | float, level: Extent) -> str:
        """A value as one that is computed more often, or a literal."""
        if not isinstance(x, Computed):
            return splat(literal(x, self.kind(level)), self.kind(level))
        name, element = x.name, "i1" if x.is_condition else self.computed
        lanes, wanted = self.lanes_at(x.level), self.lanes_at(level)
        if x.level is Extent.NUMBER < level and element == "float":
            name = self.let(f"fptrunc double {name} to float")
        if lanes == wanted:
            return name
        kind = vector(element, wanted)
        first = self.let(f"insertelement {kind} poison, {element} {name}, i64 0")
        zeros = f"<{wanted} x i32> zeroinitializer"
        return self.let(f"shufflevector {kind} {first}, {kind} poison, {zeros}")

    def operation(self, name: str, operands: Sequence[Computed | float]) -> Computed:
        """What an operation gives."""
        level = max((x.level for x in operands if isinstance(x, Computed)), default=Extent.NUMBER)
        kind = self.kind(level)
        if name in ("number", "total"):
            (only,) = operands
            return only if isinstance(only, Computed) else Computed(literal(only, "double"), level)
        xs = [self.at(x, level) for x in operands]
        if name in _COMPARED:
            compared = self.let(f"fcmp {_COMPARED[name]} {kind} {xs[0]}, {xs[1]}")
            return Computed(compared, level, is_condition=True)
        if name in ("|", "&"):
            word, bits = ("or" if name == "|" else "and"), self.kind(level, "i1")
            return Computed(self.let(f"{word} {bits} {xs[0]}, {xs[1]}"), level, is_condition=True)
        return Computed(self._number(name, xs, kind, self.kind(level, "i1")), level)

    def _number(self, name: str, xs: list[str], kind: str, bits: str) -> str:
        if name in _ARITHMETIC:
            return self.let(f"{_ARITHMETIC[name]} {kind} {xs[0]}, {xs[1]}")
        if name in _FUNCTIONS:
            return self.call(_FUNCTIONS[name], kind, xs[0])
        if name == "negative":
            return self.let(f"fneg {kind} {xs[0]}")
        if name == "where":
            return self.let(f"select {bits} {xs[0]}, {kind} {xs[1]}, {kind} {xs[2]}")
        assert name == "maximum", name
        # NaN where either is: a comparison with NaN is false.
        larger = self.let(f"fcmp ogt {kind} {xs[0]}, {xs[1]}")
        found = self.let(f"select {bits} {larger}, {kind} {xs[0]}, {kind} {xs[1]}")
        lost = self.let(f"fcmp uno {kind} {xs[0]}, {xs[0]}")
        return self.let(f"select {bits} {lost}, {kind} {xs[0]}, {kind} {found}")


SIZES = {"i8": 1, "half": 2, "bfloat": 2, "float": 4, "double": 8}
"""The bytes of an element, by LLVM's name of its type."""


def in_memory(stored: str) -> str:
    """The type of an element as it is read: the bits of a bfloat16."""
    return "i16" if stored == "bfloat" else stored


def vector(element: str, lanes: int) -> str:
    """A type of so many of another."""
    return element if lanes == 1 else f"<{lanes} x {element}>"


def literal(x: float, kind: str) -> str:
    """A number as LLVM writes it, rounded to the type."""
    if "float" in kind and math.isfinite(x):
        (x,) = struct.unpack("f", struct.pack("f", x))
    return f"0x{struct.pack('>d', x).hex().upper()}"


def splat(scalar: str, kind: str) -> str:
    """A literal in each lane of a type."""
    if not kind.startswith("<"):
        return scalar
    return f"splat ({kind.strip('<>').split(' x ')[1]} {scalar})"
