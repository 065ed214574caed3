"""PyTorch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from penalize.backends import Fixed
from penalize.errors import ArrayError, NoDerivativeError

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


def undisturbed(compute: Callable[[Tensor], Tensor], w: Tensor, differentiated: bool) -> Tensor:
    # autocast turns a product of two matrices to half precision, whatever their dtype, and in a
    # backward pass those that the derivative consists of.
    kind = w.device.type
    if not torch.amp.is_autocast_available(kind):
        return compute(w)
    since = 0 if is_traced() else torch._C._autograd._get_sequence_nr()
    if not torch.is_autocast_enabled(kind):
        found = compute(w)
    else:
        with torch.autocast(kind, enabled=False):
            found = compute(w)
            if differentiated and is_traced() and found.requires_grad and not found.ndim:
                # A compiler derives the backward pass under the autocast that is around the whole:
                # so the derivative is computed here. What it is multiplied by is 0, and has one.
                at = w.detach()
                slope = torch.func.grad(compute)(at)
                return compute(at) + 0.5 * torch.sum((slope + slope.detach()) * (w - at))
    if differentiated and not is_traced():
        _guard(found, since, kind)
    return found


def _guard(found: Tensor, since: int, kind: str) -> None:
    """Keep autocast out of the derivatives of what was computed since: out of each node by itself,
    as the engine may run others in between.
    """
    for node in _nodes(found, since):
        outer: list[tuple[bool, int]] = []

        def before(_: Any, outer: list[tuple[bool, int]] = outer) -> None:
            outer.append((torch.is_autocast_enabled(kind), torch._C._autograd._get_sequence_nr()))
            torch.set_autocast_enabled(kind, False)

        def after(found: Any, _: Any, outer: list[tuple[bool, int]] = outer) -> None:
            was_enabled, since = outer.pop()
            torch.set_autocast_enabled(kind, was_enabled)
            for each in found:
                if each is not None and each.requires_grad:  # with a graph, to be derived again
                    _guard(each, since, kind)

        node.register_prehook(before)
        node.register_hook(after)


def _nodes(found: Tensor, since: int) -> list[Any]:
    """The nodes of the graph of what was computed that are not older than it."""
    levels = [found]  # of the transforms of torch.func, each has a graph of its own
    while torch._C._functorch.is_functorch_wrapped_tensor(levels[-1]):
        levels.append(torch._C._functorch.get_unwrapped(levels[-1]))
    waiting: list[Any] = [level.grad_fn for level in levels]
    nodes: dict[Any, None] = {}
    while waiting:
        node = waiting.pop()
        # The number of what accumulates into a leaf is greater than all.
        if node is None or node in nodes or not since <= node._sequence_nr() < _LEAVES:
            continue
        nodes[node] = None
        waiting += [before for before, _ in node.next_functions]
    return list(nodes)


_LEAVES = 2**62


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


def host(f: Callable[..., Any], back: Callable[..., Any], *arrays: Tensor) -> Tensor:
    named = [f"{g.__module__}:{g.__name__}" for g in (f, back)]
    if is_traced() and not any(x.requires_grad for x in arrays):
        # So the compiler would take it, but it makes an object of the class, and PyTorch warns.
        found: Tensor = _on_host(named[0], arrays)[0]
    else:
        kind = _OnHost if is_traced() else _OnHostNotTraced
        found = kind.apply(*named, *arrays)  # type: ignore[no-untyped-call]
    return found


class _OnHost(torch.autograd.Function):
    """What ``host`` gives, with its derivative: transformations follow no operator's own."""

    generate_vmap_rule = True

    @staticmethod
    def forward(f: str, back: str, *arrays: Tensor) -> Any:
        return _on_host(f, arrays)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.back, *arrays = inputs
        ctx.save_for_backward(*arrays)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        held = (g, *ctx.saved_tensors)
        if is_traced():  # where there is no second derivative of anything
            return None, None, *_on_host(ctx.back, held)
        return None, None, *_Back.apply(ctx.back, *held)  # type: ignore[no-untyped-call]


class _OnHostNotTraced(_OnHost):
    """The same with a sentence; the compiler takes no function that has ``jvp``."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise NoDerivativeError()


class _Back(torch.autograd.Function):
    """The derivative, which has none."""

    generate_vmap_rule = True

    @staticmethod
    def forward(back: str, *arrays: Tensor) -> Any:
        return tuple(_on_host(back, arrays))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        raise NoDerivativeError()


# An operator of its own, so that compilers and transformations see one opaque function. Of two
# arrays it gives one, of more one for each but the first.
@torch.library.custom_op("penalize::on_host", mutates_args=())
def _on_host(name: str, arrays: Sequence[Tensor]) -> list[Tensor]:
    module, _, own = name.partition(":")
    given = torch.from_numpy(getattr(sys.modules[module], own)(*map(numpy, arrays))).to(arrays[0])
    return [x.clone() for x in given.reshape(len(arrays) - 1, *arrays[0].shape)]


@_on_host.register_fake
def _(name: str, arrays: Sequence[Tensor]) -> list[Tensor]:
    return [torch.empty_like(x, memory_format=torch.contiguous_format) for x in arrays[1:]]


@_on_host.register_vmap
def _(info: Any, dims: Any, name: str, arrays: Sequence[Tensor]) -> Any:
    whole = [
        x.unsqueeze(0).expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
        for x, dim in zip(arrays, dims[1], strict=True)
    ]
    found = _on_host(name, whole)
    return found, [0] * len(found)
