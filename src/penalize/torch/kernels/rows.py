"""A weight as a matrix whose rows, or columns, a regularizer treats one by one."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from penalize.regularizers.base import Regularizer


class Rows(NamedTuple):
    """How a weight is seen as a matrix whose rows a regularizer treats one by one."""

    regularizer: Regularizer
    """On the matrix."""

    leading: int
    """How many leading axes of the weight index the rows."""

    is_flat: bool
    """Whether it treats elements one by one, so that rows do not matter."""

    def of(self, x: Tensor) -> Tensor:
        """A view of a weight, or of what is beside it."""
        if not x.is_contiguous():  # then it is in the order of the channels, by can_view()
            x = x.permute(0, 2, 3, 1)
        if self.is_flat:
            return x.view(-1)
        return x.view(math.prod(x.shape[: self.leading]), -1)

    def matrix(self, x: Tensor) -> Tensor:
        """A weight, or a shard of it, with its rows as those of a matrix; perhaps a copy."""
        shape = x.shape
        return x.reshape(math.prod(shape[: self.leading]), math.prod(shape[self.leading :]))

    @property
    def layout(self) -> str:
        """What a kernel that is compiled for the CPU calls it."""
        return "flat" if self.is_flat else "rows"

    def shape_of(self, w: Tensor) -> tuple[int, int]:
        """How many rows there are, and how long they are: one, where rows do not matter."""
        count = w.numel()
        height = 1 if self.is_flat else math.prod(w.shape[: self.leading])
        return height, count // height

    def can_view(self, *xs: Tensor) -> bool:
        """Whether these lie in memory in one order, so that views of them match."""
        if all(x.is_contiguous() for x in xs):
            return xs[0].numel() > 0
        ordered = all(x.is_contiguous(memory_format=torch.channels_last) for x in xs if x.ndim == 4)
        return (self.is_flat or self.leading == 1) and xs[0].ndim == 4 and ordered


class Columns(NamedTuple):
    """The same for columns."""

    regularizer: Regularizer
    """On a matrix with each column as a row."""

    trailing: int
    """How many trailing axes of the weight index the columns."""

    def matrix(self, x: Tensor) -> Tensor:
        """A weight, or a shard of it, as a matrix whose columns are its groups; perhaps a copy."""
        shape, first = x.shape, x.ndim - self.trailing
        return x.reshape(math.prod(shape[:first]), math.prod(shape[first:]))

    @property
    def layout(self) -> str:
        """As that of rows."""
        return "columns"

    def shape_of(self, w: Tensor) -> tuple[int, int]:
        """How long the columns are, and how many there are."""
        count = w.numel()
        length = math.prod(w.shape[w.ndim - self.trailing :])
        return count // length, length

    def can_view(self, *xs: Tensor) -> bool:
        """Whether these lie in memory row by row."""
        return xs[0].numel() > 0 and all(x.is_contiguous() for x in xs)


def rows_of(regularizer: Regularizer, ndim: int) -> Rows | None:
    """None where a regularizer does not treat the rows of any matrix one by one."""
    found = regularizer.by_rows(ndim)
    return None if found is None else Rows(*found, is_flat=found[0].elementwise)


def columns_of(regularizer: Regularizer, ndim: int) -> Columns | None:
    """None where a regularizer does not treat the columns of any matrix one by one."""
    found = regularizer.by_columns(ndim)
    return None if found is None else Columns(*found)
