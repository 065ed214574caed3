"""The mathematics of a regularizer as the source of a GPU kernel.

The functions of a regularizer are called once, with symbols in the place of arrays. Each operation
writes one line. So the formulas are written once, in :mod:`penalize.regularizers`. What a symbol
cannot do, such as sorting or deciding an ``if``, raises :class:`NotTraceableError`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

framework = "symbols"


class NotTraceableError(AttributeError):
    """A regularizer does something that has no place in a kernel."""


class Symbol:
    """A value in the kernel: a number, one per row (rows × 1), or a tile (rows × length)."""

    __array_ufunc__ = None

    def __init__(self, name: str, shape: tuple[int, ...], tracer: Tracer) -> None:
        self.name, self.shape, self._tracer = name, shape, tracer

    def _binary(self, sign: str, other: Any, *, swapped: bool = False) -> Symbol:
        left, right = (other, self) if swapped else (self, other)
        return self._tracer.write(f"{text(left)} {sign} {text(right)}", left, right)

    def __add__(self, other: Any) -> Symbol:
        return self._binary("+", other)

    def __radd__(self, other: Any) -> Symbol:
        return self._binary("+", other, swapped=True)

    def __sub__(self, other: Any) -> Symbol:
        return self._binary("-", other)

    def __rsub__(self, other: Any) -> Symbol:
        return self._binary("-", other, swapped=True)

    def __mul__(self, other: Any) -> Symbol:
        return self._binary("*", other)

    def __rmul__(self, other: Any) -> Symbol:
        return self._binary("*", other, swapped=True)

    def __truediv__(self, other: Any) -> Symbol:
        return self._binary("/", other)

    def __rtruediv__(self, other: Any) -> Symbol:
        return self._binary("/", other, swapped=True)

    def __neg__(self) -> Symbol:
        return self._tracer.write(f"-{self.name}", self)

    def __lt__(self, other: Any) -> Symbol:
        return self._binary("<", other)

    def __le__(self, other: Any) -> Symbol:
        return self._binary("<=", other)

    def __gt__(self, other: Any) -> Symbol:
        return self._binary(">", other)

    def __ge__(self, other: Any) -> Symbol:
        return self._binary(">=", other)

    def __or__(self, other: Any) -> Symbol:
        return self._binary("|", other)

    def __and__(self, other: Any) -> Symbol:
        return self._binary("&", other)

    def __bool__(self) -> bool:
        raise NotTraceableError("it decides by the value of a weight")

    __float__ = __int__ = __index__ = __iter__ = __bool__


def text(value: Any) -> str:
    """A symbol's name, or a number as it is written in the kernel."""
    if isinstance(value, Symbol):
        return value.name
    if isinstance(value, bool | int | float):
        number = float(value)
        return f"({number!r})" if math.isfinite(number) else f'float("{number}")'
    raise NotTraceableError(f"it has a {type(value).__name__} in it")


class Tracer:
    """A backend, in the sense of :mod:`penalize.backends`, whose arrays are symbols."""

    framework = framework

    is_cut = False

    def __init__(self, length: int, eps: float) -> None:
        self.lines: list[str] = []
        self._length, self._eps = length, eps

    def __getattr__(self, name: str) -> Any:
        raise NotTraceableError(f"it asks for {name}")

    def symbol(self, name: str, *, is_tile: bool = False) -> Symbol:
        """One that the kernel has read already: a tile, or a number."""
        return Symbol(name, (1, self._length) if is_tile else (), self)

    def write(self, expression: str, *operands: Any) -> Symbol:
        """A line that computes something from operands, whose shape is theirs, broadcast."""
        shapes = [x.shape for x in operands if isinstance(x, Symbol)]
        name = f"v{len(self.lines)}"
        self.lines.append(f"{name} = {expression}")
        return Symbol(name, max(shapes, default=(), key=lambda shape: (len(shape), shape)), self)

    # --- what the mathematics asks for ------------------------------------------------------

    def shape(self, w: Symbol) -> tuple[int, ...]:
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
        # As a product with a number that is read, it is a symbol, as the array would be one.
        return self.write(f"{text(value)} + 0 * one")

    def abs(self, x: Symbol) -> Symbol:
        return self.write(f"tl.abs({text(x)})", x)

    def sign(self, x: Symbol) -> Symbol:
        # NaN stays NaN: neither comparison holds, and x·0 is NaN.
        return self.write(
            f"tl.where({x.name} > 0, 1.0, tl.where({x.name} < 0, -1.0, {x.name} * 0))", x
        )

    def sqrt(self, x: Symbol) -> Symbol:
        return self.write(f"tl.sqrt({text(x)})", x)

    def log1p(self, x: Symbol) -> Symbol:
        # log(1 + x), corrected by what is lost in 1 + x (Kahan).
        whole = self.write(f"1.0 + {text(x)}", x)
        return self.write(
            f"tl.where({whole.name} == 1.0, {x.name}, tl.log({whole.name}) * {x.name} / "
            f"tl.where({whole.name} == 1.0, 1.0, {whole.name} - 1.0))",
            x,
        )

    def cos(self, x: Symbol) -> Symbol:
        return self.write(f"tl.cos({text(x)})", x)

    def clip(self, x: Symbol, low: Any, high: Any) -> Symbol:
        # By comparisons, which are false for NaN, so that it passes.
        below = self.write(f"tl.where({text(x)} < {text(low)}, {text(low)}, {text(x)})", x, low)
        return self.write(
            f"tl.where({below.name} > {text(high)}, {text(high)}, {below.name})", x, high
        )

    def maximum(self, x: Any, y: Any) -> Symbol:
        return self.write(f"tl.maximum({text(x)}, {text(y)})", x, y)

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        if not isinstance(condition, Symbol):
            return a if condition else b
        return self.write(f"tl.where({condition.name}, {text(a)}, {text(b)})", condition, a, b)

    def sum(self, x: Symbol, axes: Sequence[int] | None = None) -> Symbol:
        if axes is not None and list(axes) == [1]:
            found = self.write(f"tl.sum(tl.where(inside, {x.name}, 0.0), axis=1, keep_dims=True)")
            found.shape = (1, 1)
            return found
        if axes is None or list(axes) == [0]:
            mask = "inside" if x.shape[-1:] != (1,) else "in_rows"
            return self.write(f"tl.sum(tl.where({mask}, {x.name}, 0.0))")
        raise NotTraceableError(f"it sums over the axes {axes}")

    def reshape(self, x: Symbol, shape: Sequence[int]) -> Symbol:
        if x.shape or tuple(shape):
            raise NotTraceableError("it reshapes an array")
        return x
