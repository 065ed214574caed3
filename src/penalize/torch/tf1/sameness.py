"""Whether two regularizers are the same, though each may have been made anew.

On PyTorch a model's code runs in every step, so ``regularizer=l2_regularizer(0.1)`` is another
function object each time. Two functions are taken for the same if they run the same code on the
same values.
"""

from __future__ import annotations

import functools
from types import CellType, FunctionType, MethodType
from typing import Any

from torch import Tensor

from penalize.contrib import Scaled, Summed
from penalize.regularizers.base import Regularizer


def same(a: Any, b: Any) -> bool:
    """Whether two values, functions among them, cannot be told apart. Tensors: by identity."""
    try:
        return _same(a, b)
    except (ValueError, TypeError, RuntimeError):  # no truth value; a function that holds itself
        return False


def alike(a: Any, b: Any) -> bool:
    """Whether two regularizers differ in their values only, such as in the strength."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Regularizer):
        return bool(a.unit() == b.unit())
    if isinstance(a, Scaled):
        return bool(a.unit == b.unit)
    if isinstance(a, FunctionType):
        return bool(a.__code__ == b.__code__)
    return True


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if type(a) is not type(b) or isinstance(a, Tensor):
        return False
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and _same(list(a.values()), list(b.values()))
    parts = _parts(a)
    return bool(a == b) if parts is None else _same(parts, _parts(b))


def _parts(value: Any) -> tuple[Any, ...] | None:
    """What decides what a function does; None for other values."""
    if isinstance(value, FunctionType):
        cells = value.__closure__ or ()
        return value.__code__, value.__defaults__, value.__kwdefaults__, cells
    if isinstance(value, CellType):
        return (value.cell_contents,)
    if isinstance(value, functools.partial):
        return value.func, value.args, value.keywords
    if isinstance(value, MethodType):
        return value.__func__, value.__self__
    if isinstance(value, Scaled):
        return value.unit, value.scale
    if isinstance(value, Summed):
        return value.functions
    return None


def described(function: Any) -> str:
    """A function, for a message: ``l2_regularizer(scale=0.1)``, ``L2(0.05)``."""
    if function is None:
        return "none"
    if not isinstance(function, FunctionType):
        return str(getattr(function, "__name__", repr(function)))
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    numbers = {
        name: cell.cell_contents for name, cell in cells if isinstance(cell.cell_contents, float)
    }
    given = ", ".join(f"{name}={value!r}" for name, value in numbers.items())
    return f"{function.__name__}({given})" if given else function.__name__
