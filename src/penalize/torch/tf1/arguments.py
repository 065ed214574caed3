"""What was asked of ``get_variable``: its arguments, read once."""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from penalize.errors import ScopeError, VariableError
from penalize.torch.tf1.keys import Reuse

Shape = tuple[int | None, ...]
"""None for a size that is not known, as TensorFlow has it."""


@dataclass(frozen=True)
class Wanted:
    """One variable, as it was asked for, with the defaults of its scope."""

    name: str
    shape: Shape | None
    dtype: torch.dtype
    initializer: Any
    regularizer: Any
    reuse: bool | Reuse | None
    trainable: bool
    collections: tuple[Any, ...]
    partitioner: Any

    @property
    def constant(self) -> bool:
        """Whether the initializer is the value itself."""
        return self.initializer is not None and not callable(self.initializer)


_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")


def check_name(what: str, name: str) -> None:
    """Raise :class:`VariableError` for what TensorFlow does not take for a name.

    Args:
        what: of what it is the name.
        name: all of it, with the scopes around.
    """
    if name and not _NAME.fullmatch(name):
        raise VariableError(
            f"{what} got the name {name!r}",
            "letters, digits and _ . / - only, and a letter or digit first",
        )


def shape_of(name: str, shape: Any) -> Shape | None:
    """A shape: a size, a sequence of sizes, or None.

    Raises:
        ScopeError: it is none of them.
        VariableError: a size is negative.
    """
    if shape is None:
        return None
    wrong = f"variable {name!r} was asked for with shape={shape!r}", "a sequence of sizes >= 0"
    try:
        sizes = tuple(shape) if hasattr(shape, "__iter__") else (shape,)
        read = tuple(None if size is None else operator.index(size) for size in sizes)
    except TypeError as error:
        raise ScopeError(*wrong) from error
    if any(isinstance(size, bool) for size in sizes):
        raise ScopeError(*wrong)
    if any(size is not None and size < 0 for size in read):
        raise VariableError(*wrong)
    return read


def dtype_of(name: str, dtype: Any) -> torch.dtype:
    """PyTorch's dtype for one of PyTorch, NumPy or TensorFlow, or its name.

    Raises:
        ScopeError: PyTorch has none of that name.
    """
    called = getattr(dtype, "name", None) or getattr(dtype, "__name__", dtype)
    found = dtype if isinstance(dtype, torch.dtype) else getattr(torch, str(called), None)
    if not isinstance(found, torch.dtype):
        raise ScopeError(
            f"variable {name!r} was asked for with dtype={dtype!r}", "one such as torch.float32"
        )
    return found


def tensor_of(name: str, value: Any) -> Tensor:
    """What an initializer is or gives, as a tensor of its own.

    Raises:
        ScopeError: it is nothing that a tensor could hold.
        VariableError: it is None, or a list whose rows differ in length.
    """
    wrong = f"the initializer of variable {name!r} is or gave {value!r}", "numbers, or a tensor"
    if value is None:
        raise VariableError(*wrong)
    try:
        return value.detach().clone() if isinstance(value, Tensor) else torch.tensor(value)
    except ValueError as error:
        raise VariableError(*wrong) from error
    except (TypeError, RuntimeError) as error:
        raise ScopeError(*wrong) from error


def constant_of(name: str, value: Any) -> Tensor:
    """A value as TensorFlow reads it: Python's floats are float32, its integers int32.

    Raises:
        ScopeError, VariableError: as :func:`tensor_of`.
    """
    tensor = tensor_of(name, value)
    if hasattr(value, "dtype"):
        return tensor
    if tensor.is_complex():
        return tensor.to(torch.complex128)
    if tensor.is_floating_point():
        return tensor.to(torch.float32)
    fits = tensor.dtype is torch.int64 and bool((tensor == tensor.to(torch.int32)).all())
    return tensor.to(torch.int32) if fits else tensor


def fits(wanted: Shape | None, found: Shape) -> bool:
    """Whether a variable of this shape is what was asked for."""
    return wanted is None or (
        len(wanted) == len(found)
        and all(a is None or a == b for a, b in zip(wanted, found, strict=True))
    )
