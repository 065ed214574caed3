"""The first value of a variable."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from penalize.errors import VariableError
from penalize.torch.tf1.arguments import Wanted, constant_of, fits, tensor_of
from penalize.torch.tf1.sameness import described


def initial_value(wanted: Wanted) -> Tensor:
    """A tensor of its own, by the rules of TensorFlow 1.

    A callable is called as ``initializer(shape, dtype=dtype)``, or without arguments where no shape
    was given. Anything else is the value, and has shape and dtype. Without an initializer floating
    variables are Glorot's uniform ones, others are zeros.

    Raises:
        VariableError: shape and initializer do not fit together, or it gives no tensor.
        ScopeError: it gives nothing that a tensor could hold.
    """
    if wanted.constant:
        return constant_of(wanted.name, wanted.initializer)
    initializer: Any = _default(wanted) if wanted.initializer is None else wanted.initializer
    if inspect.isclass(initializer):
        initializer = initializer()
    shape = wanted.shape
    if shape is not None and None not in shape:
        value = initializer(list(shape), dtype=wanted.dtype)
        if isinstance(value, Tensor) and value.dtype != wanted.dtype:
            raise VariableError(
                f"the initializer of variable {wanted.name!r} gave a tensor of {value.dtype}",
                f"{wanted.dtype}, for which it was asked: it is called with dtype=",
            )
        value = tensor_of(wanted.name, value).to(wanted.dtype)
    elif _needs_no_arguments(initializer):
        value = constant_of(wanted.name, initializer())
    else:
        raise VariableError(
            f"variable {wanted.name!r} was asked for with the initializer "
            f"{described(initializer)} and "
            f"shape={shape!r}",
            "a shape without unknown sizes, or an initializer that needs no arguments",
        )
    if not fits(shape, value.shape):
        raise VariableError(
            f"the initializer of variable {wanted.name!r} gave shape {tuple(value.shape)}",
            f"shape {shape}",
        )
    return value


def _needs_no_arguments(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a builtin such as torch.zeros
        return False
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(p.kind in optional or p.default is not inspect.Parameter.empty for p in parameters)


def _default(wanted: Wanted) -> Callable[..., Tensor]:
    if wanted.shape is None:
        raise VariableError(
            f"variable {wanted.name!r} has neither a shape nor an initializer", "one of them"
        )
    return glorot_uniform if wanted.dtype.is_floating_point else torch.zeros


def glorot_uniform(shape: list[int], dtype: torch.dtype) -> Tensor:
    """Uniform within ±√(6 / (fan in + fan out)), with TensorFlow's output-last fans."""
    fan_in, fan_out = _fans(shape)
    limit = math.sqrt(6 / max(2, fan_in + fan_out))
    return torch.empty(shape, dtype=dtype).uniform_(-limit, limit)


def _fans(shape: list[int]) -> tuple[int, int]:
    if len(shape) < 2:
        return (shape or [1])[0], (shape or [1])[0]
    field = math.prod(shape[:-2])
    return field * shape[-2], field * shape[-1]
