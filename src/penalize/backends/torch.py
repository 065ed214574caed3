"""PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from penalize.errors import ArrayError

framework = "torch"
sign = torch.sgn
sqrt = torch.sqrt
clip = torch.clip
where = torch.where
abs = torch.abs
reshape = torch.reshape
total = torch.sum


def transpose(x: Tensor) -> Tensor:
    return x.T


def shape(w: Tensor) -> tuple[int, ...]:
    return tuple(w.shape)


def wide(w: Tensor) -> Tensor:
    if not w.dtype.is_floating_point:
        raise ArrayError(f"a torch tensor of dtype {w.dtype}", "a real floating-point dtype")
    return w.float() if w.dtype.itemsize < 4 else w


def shares(w: Tensor) -> list[tuple[int, Tensor]]:
    return [(1, w)]


def like(x: Tensor, w: Tensor) -> Tensor:
    return x.to(w.dtype)


def constant(values: Sequence[float], x: Tensor) -> Tensor:
    return torch.tensor(values, dtype=x.dtype, device=x.device)


def sum(x: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    if axes is None:
        return torch.sum(x)
    # torch reads an empty tuple of dimensions as "all of them".
    return torch.sum(x, dim=tuple(axes), keepdim=True) if axes else x


def segment_sum(x: Tensor, ids: Sequence[int], count: int) -> Tensor:
    return x.new_zeros(count).index_add(0, _index(ids, x), x)


def take(x: Tensor, ids: Sequence[int]) -> Tensor:
    return x[_index(ids, x)]


def _index(ids: Sequence[int], x: Tensor) -> Tensor:
    return torch.tensor(ids, dtype=torch.long, device=x.device)
