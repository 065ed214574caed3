"""Partitioners: how TensorFlow 1 cuts a variable into shards.

Shards are a means of placement. Here a variable stays whole, under its own name, and its
regularizer is called once, with all of it: summed over shards, a penalty on groups or on singular
values would be another number. A partitioner is called and checked as TensorFlow does it, so that
a port finds the same mistakes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import torch

from penalize.errors import PenalizeError, ScopeError, VariableError
from penalize.torch.tf1.arguments import Wanted


def fixed_size_partitioner(num_shards: int, axis: int = 0) -> Callable[..., list[int]]:
    """A partitioner that cuts one axis into so many shards, or into single rows if it has fewer.

    Args:
        num_shards: how many.
        axis: along which axis.
    """

    def partitioner(shape: Sequence[int], **unused: Any) -> list[int]:
        partitions = [1] * len(shape)
        partitions[axis] = min(num_shards, shape[axis])
        return partitions

    return partitioner


def partitions_of(wanted: Wanted) -> list[int] | None:
    """What the partitioner says for this variable; None without one, and for a scalar.

    It is called as ``partitioner(shape=torch.Size, dtype=torch.dtype)``.

    Raises:
        VariableError: a ValueError, wherever TensorFlow 1 raises one.
        ScopeError: a TypeError: it gave something else than integers.
    """
    if wanted.partitioner is None or wanted.shape == ():
        return None
    if not callable(wanted.partitioner):
        raise _wrong(wanted, f"is {wanted.partitioner!r}", "a callable")
    shape = wanted.shape
    if shape is None or None in shape:
        raise _wrong(wanted, f"was given the shape {shape}", "a shape without unknown sizes")
    size = torch.Size(shape)  # type: ignore[arg-type]  # None is excluded above
    partitions = wanted.partitioner(shape=size, dtype=wanted.dtype)
    returned = f"returned {partitions!r}"
    if not isinstance(partitions, Sequence) or len(partitions) != len(shape):
        raise _wrong(wanted, returned, f"one number for each axis of {shape}")
    if not all(isinstance(number, Integral) for number in partitions):
        raise _wrong(wanted, returned, "integers", ScopeError)
    if any(not 1 <= n <= max(1, axis) for n, axis in zip(partitions, size, strict=True)):
        raise _wrong(wanted, returned, f"numbers >= 1, and no more than rows in {shape}")
    if sum(number > 1 for number in partitions) > 1:
        raise _wrong(wanted, returned, "shards along one axis only")
    return list(partitions)


def _wrong(
    wanted: Wanted, found: str, expected: str, kind: type[PenalizeError] = VariableError
) -> PenalizeError:
    return kind(f"the partitioner of variable {wanted.name!r} {found}", expected)
