"""PyTorch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from penalize.backends import Fixed
from penalize.errors import ArrayError

framework = "torch"
sign = torch.sgn
sqrt = torch.sqrt
log1p = torch.log1p
cos = torch.cos
clip = torch.clip
maximum = torch.maximum
where = torch.where
abs = torch.abs
reshape = torch.reshape
broadcast = torch.broadcast_to
total = torch.sum


def transpose(x: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    return x.T if axes is None else x.permute(tuple(axes))


_UNDISTURBED: AbstractContextManager[None] = nullcontext()


def undisturbed(w: Tensor) -> AbstractContextManager[Any]:
    # autocast turns a product of two matrices to half precision, whatever their dtype.
    kind = w.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return _UNDISTURBED


def is_traced() -> bool:
    return torch.compiler.is_compiling()


def shape(w: Tensor) -> tuple[int, ...]:
    return tuple(w.shape)


def wide(w: Tensor) -> Tensor:
    if not w.dtype.is_floating_point:
        raise ArrayError(f"a torch tensor of dtype {w.dtype}", "a real floating-point dtype")
    if w.layout is not torch.strided or w.is_nested:
        kind = "that is nested" if w.is_nested else f"of layout {w.layout}"
        raise ArrayError(f"a torch tensor {kind}", "a dense one, such as w.to_dense()")
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


pick = take


def _index(ids: Sequence[int], x: Tensor) -> Tensor:
    return torch.tensor(ids, dtype=torch.long, device=x.device)


def full(shape: Sequence[int], value: float, x: Tensor) -> Tensor:
    return x.new_full(tuple(shape), value)


def eye(size: int, x: Tensor) -> Tensor:
    return torch.eye(size, dtype=x.dtype, device=x.device)


def fixed(values: Fixed, w: Tensor) -> Tensor:
    dtype = w.dtype if w.dtype.itemsize >= 4 else torch.float32
    key = (w.device, dtype)
    held: Tensor | None = values.held.get(key)
    if held is None:
        held = torch.tensor(values.numpy()).to(*key)
        if type(held) is Tensor and not held.is_inference():  # else of no use to others
            values.held[key] = held
    return held


def numpy(w: Tensor) -> Any:
    return wide(w).detach().cpu().numpy().copy()


def real(x: Tensor) -> Tensor:
    return x if x.is_floating_point() else x.to(torch.float64)


def eps(w: Tensor) -> float:
    return torch.finfo(w.dtype).eps


def tiny(w: Tensor) -> float:
    return torch.finfo(w.dtype).tiny


def concat(parts: Sequence[Tensor], axis: int) -> Tensor:
    return torch.cat(tuple(parts), axis)


def max(x: Tensor) -> Tensor:
    return torch.amax(x, -1, keepdim=True)


def descending(x: Tensor) -> Tensor:
    return torch.argsort(x, -1, descending=True)


def along(x: Tensor, order: Tensor) -> Tensor:
    return torch.take_along_dim(x, order, -1)


def cumsum(x: Tensor) -> Tensor:
    return torch.cumsum(x, -1)


def svd(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    u, s, vt = torch.linalg.svd(x, full_matrices=False)
    return u, s, vt


def stop(x: Tensor) -> Tensor:
    return x.detach()


def gradient(f: Callable[[Tensor], Tensor], w: Tensor) -> Tensor:
    found: Tensor = torch.func.grad(f)(w)
    return found


def host(f: Callable[..., Any], x: Tensor, *others: Tensor) -> Tensor:
    found: Tensor = _on_host(f.__module__, f.__name__, [x, *others])
    return found


# An operator of its own, so that compilers and transformations see one opaque function.
@torch.library.custom_op("penalize::on_host", mutates_args=())
def _on_host(module: str, name: str, arrays: Sequence[Tensor]) -> Tensor:
    f = getattr(sys.modules[module], name)
    return torch.from_numpy(f(*map(numpy, arrays))).contiguous().to(arrays[0])


@_on_host.register_fake
def _(module: str, name: str, arrays: Sequence[Tensor]) -> Tensor:
    return torch.empty_like(arrays[0], memory_format=torch.contiguous_format)


@_on_host.register_vmap
def _(info: Any, dims: Any, module: str, name: str, arrays: Sequence[Tensor]) -> Any:
    whole = [
        x.unsqueeze(0).expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
        for x, dim in zip(arrays, dims[2], strict=True)
    ]
    return _on_host(module, name, whole), 0
