"""The mathematics of a regularizer as the operations of a kernel.

The functions of a regularizer are called once, with symbols in the place of arrays. Each operation
is written down, and each kind of kernel prints what was written in its own language. So the
formulas are written once, in :mod:`penalize.regularizers`. What a symbol cannot do, such as sorting
or deciding an ``if``, raises :class:`NotTraceableError`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

framework = "symbols"


class NotTraceableError(AttributeError):
    """A regularizer does something that has no place in a kernel."""


class Extent(IntEnum):
    """How often a kernel computes something."""

    NUMBER = 0
    """Once per weight."""

    ROW = 1
    """Once per row: rows × 1."""

    TILE = 2
    """For each element: rows × length."""


class Symbol:
    """A value in the kernel."""

    __array_ufunc__ = None

    def __init__(self, name: str, level: Extent, shape: tuple[Any, ...], tracer: Tracer) -> None:
        self.name, self.level, self.shape, self._tracer = name, level, shape, tracer

    def __add__(self, other: Any) -> Symbol:
        return self._tracer.write("+", self, other)

    def __radd__(self, other: Any) -> Symbol:
        return self._tracer.write("+", other, self)

    def __sub__(self, other: Any) -> Symbol:
        return self._tracer.write("-", self, other)

    def __rsub__(self, other: Any) -> Symbol:
        return self._tracer.write("-", other, self)

    def __mul__(self, other: Any) -> Symbol:
        return self._tracer.write("*", self, other)

    def __rmul__(self, other: Any) -> Symbol:
        return self._tracer.write("*", other, self)

    def __truediv__(self, other: Any) -> Symbol:
        return self._tracer.write("/", self, other)

    def __rtruediv__(self, other: Any) -> Symbol:
        return self._tracer.write("/", other, self)

    def __neg__(self) -> Symbol:
        return self._tracer.write("negative", self)

    def __lt__(self, other: Any) -> Symbol:
        return self._tracer.write("<", self, other)

    def __le__(self, other: Any) -> Symbol:
        return self._tracer.write("<=", self, other)

    def __gt__(self, other: Any) -> Symbol:
        return self._tracer.write(">", self, other)

    def __ge__(self, other: Any) -> Symbol:
        return self._tracer.write(">=", self, other)

    def __eq__(self, other: Any) -> Any:
        return self._tracer.write("==", self, other)

    __hash__ = object.__hash__

    def __or__(self, other: Any) -> Symbol:
        return self._tracer.write("|", self, other)

    def __and__(self, other: Any) -> Symbol:
        return self._tracer.write("&", self, other)

    def __bool__(self) -> bool:
        raise NotTraceableError("it decides by the value of a weight")

    __float__ = __int__ = __index__ = __iter__ = __bool__


Operand = Symbol | float


class Operation(NamedTuple):
    """One operation of a kernel."""

    name: str
    operands: tuple[Operand, ...]
    turn: Turn | None = None
    """Of ``settled``."""


class Turn(NamedTuple):
    """One turn of a loop that closes in on a number per row, from bounds on it."""

    low: Symbol
    high: Symbol
    bisects: Symbol
    """Whether it starts between the bounds, and not at the lower one."""

    operations: dict[str, Operation]
    closer: tuple[Operand, Operand]
    """The bounds after it."""


class Unknown:
    """The length of rows, in a kernel for rows of any length."""

    def __index__(self) -> int:
        raise NotTraceableError("it asks for the length of a row")

    def __mul__(self, other: Any) -> Any:
        return self.__index__()

    __rmul__ = __add__ = __radd__ = __sub__ = __rsub__ = __truediv__ = __rtruediv__ = __mul__
    __lt__ = __le__ = __gt__ = __ge__ = __mul__
    __float__ = __int__ = __bool__ = __index__


def number(value: Any) -> float:
    """A plain number in a formula."""
    if isinstance(value, bool | int | float):
        return float(value)
    raise NotTraceableError(f"it has a {type(value).__name__} in it")


class Tracer:
    """A backend, in the sense of :mod:`penalize.backends`, whose arrays are symbols.

    Args:
        length: of a row, or of the tile that it is in.
        eps: the distance from 1 to the next number of the type that is computed in.
    """

    framework = framework

    is_cut = False

    def __init__(self, length: int | Unknown, eps: float) -> None:
        self.operations: dict[str, Operation] = {}
        """By the name of what it gives, each after those that it needs."""

        self._length, self._eps = length, eps
        self._count = 0
        self._known: dict[Any, Symbol] = {}

    def __getattr__(self, name: str) -> Any:
        raise NotTraceableError(f"it asks for {name}")

    def symbol(self, name: str, level: Extent = Extent.NUMBER) -> Symbol:
        """One that the kernel has read already."""
        shape = {Extent.NUMBER: (), Extent.ROW: (1, 1), Extent.TILE: (1, self._length)}[level]
        return Symbol(name, level, shape, self)

    def write(self, name: str, *operands: Any, level: Extent | None = None) -> Symbol:
        """An operation, whose shape is that of its operands, broadcast."""
        held = tuple(x if isinstance(x, Symbol) else number(x) for x in operands)
        key = (name, *(x.name if isinstance(x, Symbol) else repr(x) for x in held))
        if key not in self._known:
            levels = [x.level for x in held if isinstance(x, Symbol)]
            found = max(levels, default=Extent.NUMBER) if level is None else level
            self._known[key] = self.symbol(f"v{self._count}", found)
            self.operations[f"v{self._count}"] = Operation(name, held)
            self._count += 1
        return self._known[key]

    # --- what the mathematics asks for ------------------------------------------------------

    def shape(self, w: Symbol) -> tuple[Any, ...]:
        return w.shape

    def wide(self, w: Any) -> Any:
        return w

    def like(self, x: Any, w: Any) -> Any:
        return x

    def stop(self, x: Any) -> Any:
        return x

    def eps(self, w: Any) -> float:
        return self._eps

    def tiny(self, w: Any) -> float:
        return 2.0**-126  # float32's, which is one of float64 too

    def full(self, shape: Sequence[int], value: float, x: Any) -> Any:
        if tuple(shape):
            raise NotTraceableError("it makes an array")
        return self.write("number", value)

    def abs(self, x: Symbol) -> Symbol:
        return self.write("abs", x)

    def sign(self, x: Symbol) -> Any:
        # NaN stays NaN: neither comparison holds, and x·0 is NaN. And −0 gives 0.
        return self.where(x > 0, 1.0, self.where(x < 0, -1.0, x * 0 + 0.0))

    def sqrt(self, x: Symbol) -> Symbol:
        return self.write("sqrt", x)

    def log1p(self, x: Symbol) -> Any:
        # log(1 + x), corrected by what is lost in 1 + x (Kahan).
        whole = 1.0 + x
        lost = whole == 1.0
        log = self.write("log", whole)
        return self.where(lost, x, log * x / self.where(lost, 1.0, whole - 1.0))

    def cos(self, x: Symbol) -> Symbol:
        return self.write("cos", x)

    def clip(self, x: Any, low: Any, high: Any) -> Any:
        # By comparisons, which are false for NaN, so that it passes.
        below = self.where(self.write("<", x, low), low, x)
        return self.where(self.write(">", below, high), high, below)

    def maximum(self, x: Any, y: Any) -> Symbol:
        return self.write("maximum", x, y)

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        if not isinstance(condition, Symbol):
            return a if condition else b
        return self.write("where", condition, a, b)

    def sum(self, x: Symbol, axes: Sequence[int] | None = None) -> Symbol:
        if axes is not None and list(axes) == [1]:
            return self.write("sum", x, level=Extent.ROW)
        if axes is None or list(axes) == [0]:
            total = self.write("total", x, level=Extent.ROW)
            return Symbol(total.name, Extent.ROW, (), self)
        raise NotTraceableError(f"it sums over the axes {axes}")

    def reshape(self, x: Symbol, shape: Sequence[int]) -> Symbol:
        if x.shape or tuple(shape):
            raise NotTraceableError("it reshapes an array")
        return x


class LoopTracer(Tracer):
    """One for kernels that have loops, over rows of any length; perhaps with parts elsewhere."""

    def __init__(self, eps: float, *, is_cut: bool = False) -> None:
        super().__init__(Unknown(), eps)
        self.is_cut = is_cut

    @property
    def root_size(self) -> Symbol:
        """√length, which is read."""
        return self.symbol("root_size")

    def implicit(self, value: Any, f: Any, arrays: Any) -> Any:
        """The value: nobody differentiates a kernel."""
        return value

    def inverse(self, x: Symbol) -> Any:
        """1/x, for x > 0; finite where x is as small as a number can be."""
        tiny = self.tiny(x)
        return 1.0 / self.where(x < tiny, tiny, x)

    def settled(
        self, closer: Callable[[Any, Any, Any], tuple[Any, Any]], low: Any, high: Any
    ) -> Symbol:
        """The lower bound when it moves no more; see :mod:`penalize.regularizers.diagonal`."""
        outside, known = self.operations, self._known
        self.operations, self._known = {}, dict(known)
        names = [f"v{self._count}.{part}" for part in ("low", "high", "bisects")]
        below, above = (self.symbol(name, Extent.ROW) for name in names[:2])
        bisects = self.symbol(names[2])
        start = self.where(bisects, self.sqrt(below) * self.sqrt(above), below)
        turn = Turn(below, above, bisects, self.operations, closer(start, below, above))
        self.operations, self._known = outside, known
        name = f"v{self._count}"
        self._count += 1
        self.operations[name] = Operation("settled", (low, high), turn)
        return self.symbol(name, Extent.ROW)


def text(value: Operand) -> str:
    """A symbol's name, or a number as Python writes it."""
    if isinstance(value, Symbol):
        return value.name
    return f"({value!r})" if math.isfinite(value) else f'float("{value}")'
