"""Operators that compute elements from elements at the same place: these are one unit there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from penalize.torch.compacting.calls import Call, if_zero, joined_along
from penalize.torch.compacting.readers import keep_dimensions
from penalize.torch.compacting.units import NONE, Units, once
from penalize.torch.compacting.values import Facts, Piece, mapped, plain, same_along, values_in

JUMPS = {"sign", "floor", "round", "threshold"}
"""Functions of which a rounding makes another number, so that what is known in float64 is not."""


def elementwise(call: Call, *args: Any, **kwargs: Any) -> Any:
    """Elements from elements, by what PyTorch computes of constants."""
    shape, kernel = call.meta.shape, _not_in_place(call.target)
    if call.name == "prelu":  # its weight is of channels
        args, kernel = (args[0], _channelwise(args[1], len(shape))), _prelu
    inputs = values_in([args, kwargs])
    units = together(call.units, inputs, shape, call.name)
    if not call.is_real:
        return plain(call.meta)._replace(units=units)
    knowns = [if_zero(x) if call.name in JUMPS else x.known for x in inputs]
    known = torch.stack([part.expand(shape) for part in knowns]).all(0)
    computed = kernel(*mapped(_number, args), **mapped(_number, kwargs))
    computed = computed.double().expand(shape)
    if call.name == "mul" and len(inputs) == 2:  # what is multiplied by a 0 is one
        zeros = if_zero(inputs[0]).expand(shape) | if_zero(inputs[1]).expand(shape)
        known, computed = known | zeros, torch.where(zeros, 0.0, computed)
    return Facts(units, known & computed.isfinite(), computed)


def _number(value: Facts) -> Tensor:
    x = value.constant
    return x.double() if x.is_floating_point() else x


def glu(call: Call, x: Facts, dim: int = -1) -> Any:
    """One half, times the sigmoid of the other."""
    a, gate = x.moved(lambda part: part.chunk(2, dim))
    gate = elementwise(call._replace(target=torch.ops.aten.sigmoid.default), gate)
    return elementwise(call._replace(target=torch.ops.aten.mul.Tensor), a, gate)


def like(call: Call, x: Facts, *args: Any, **kwargs: Any) -> Any:
    """One number at each place."""
    return Facts(
        x.units,
        torch.ones((), dtype=torch.bool).expand(x.shape),
        call.target(x.constant.double(), *args, **kwargs).double(),
    )


def _prelu(x: Tensor, w: Tensor) -> Tensor:
    return torch.where(x > 0, x, w * x)


def _not_in_place(target: Any) -> Callable[..., Tensor]:
    """``add.Tensor`` for ``add_.Tensor``."""
    packet, _, overload = str(target.__name__).partition(".")
    if packet.endswith("_"):
        target = getattr(getattr(torch.ops.aten, packet[:-1]), overload)
    found: Callable[..., Tensor] = target
    return found


def batch_norm(call: Call, x: Facts, *args: Any) -> Any:
    """γ (x − mean)/√(variance + ε) + β of each channel, with the statistics that it has learned."""
    weight, bias, mean, variance, training, _, eps = args[:7]
    if training or mean is None:
        return call.unknown("batch_norm takes the mean of the batch", x, weight, bias)

    def run(x: Tensor, w: Any, b: Any, mean: Tensor, variance: Tensor) -> Tensor:
        return functional.batch_norm(x, mean, variance, w, b, False, 0.0, eps)

    return _of_channels(call, x, [weight, bias, mean, variance], run)


def instance_norm(call: Call, x: Facts, *args: Any) -> Any:
    """γ (x − mean)/√(variance + ε) + β of each channel of each example, over its own elements."""
    weight, bias, _, _, uses_input, _, eps = args[:7]
    if not uses_input:
        return call.unknown("instance_norm has statistics that it has learned", x, weight, bias)
    spatial = list(range(2, len(x.shape)))
    whole = x._replace(known=x.known.all(dim=spatial, keepdim=True).expand(x.shape))

    def run(x: Tensor, w: Any, b: Any) -> Tensor:
        return functional.instance_norm(x, None, None, w, b, True, 0.0, eps)

    return _of_channels(call, whole, [weight, bias], run)


def _of_channels(call: Call, x: Facts, beside: Sequence[Any], run: Callable[..., Tensor]) -> Facts:
    """What is computed from a channel, and a number for each in parameters and buffers."""
    there = [_channelwise(value, len(x.shape)) for value in beside if value is not None]
    units = together(call.units, [x, *there], x.shape, "a norm of channels")
    parts = [None if value is None else value.constant.double() for value in beside]
    scale = 1.0 if parts[0] is None else _vector(parts[0], len(x.shape))
    alone = (scale * torch.ones(x.shape)) == 0  # nothing is left of what lives in it
    call.wiring.dead.append(units[alone & ~x.known])
    computed = run(torch.where(x.known, x.constant.double(), 0.0), *parts)
    return Facts(units, (x.known | alone) & computed.isfinite(), computed)


def _channelwise(value: Facts, dimensions: int) -> Facts:
    """A vector of channels as it stands beside activations."""
    if value.units.numel() == 1:
        return value
    found: Facts = value.moved(lambda part: _vector(part, dimensions))
    return found


def _vector(x: Tensor, dimensions: int) -> Tensor:
    return x.reshape(1, -1, *[1] * (dimensions - 2))


def together(units: Units, values: Sequence[Facts], shape: Sequence[int], name: str) -> Tensor:
    """The units of what is computed from elements at the same place, which are one unit there.

    A parameter's dimension takes part, and is cut with them. Whatever else has a size of its own
    along the units keeps them; where it has that along some of their dimensions only, as cosines
    of positions along the channels of each head, what is one there goes as a whole.
    """
    shape = tuple(int(size) for size in shape)
    sizes = [(1,) * (len(shape) - len(value.shape)) + value.shape for value in values]
    ids = [value.units.reshape(size) for value, size in zip(values, sizes, strict=True)]
    along = [d for d in range(len(shape)) if not all(same_along(each, [d]) for each in ids)]
    found = torch.full((), NONE).expand(shape)
    beside = []
    for value, size, each in zip(values, sizes, ids, strict=True):
        if along and all(size[d] == 1 for d in along):
            units.keep(each, f"{name} applies it to all others")
            keep_dimensions(units, value.origin, f"{name} applies it to all others")
            continue
        beside.append((value, size))
        wide = each.expand(shape)
        units.join(found, wide)
        found = torch.where(found >= 0, found, wide) if (once(found) >= 0).any() else wide
    if not (once(found) >= 0).any():
        for value, _ in beside:
            keep_dimensions(units, value.origin, f"{name} computes with it")
        return found
    for value, size in beside:
        own = [d for d in along if size[d] > 1]
        if not value.has_units and own and _is_even(value, own, size):
            continue
        if not value.has_units and len(own) < len(along):
            units.later.append(partial(_part_of, units, value, found, own, name))
        elif value.origin is not None and not value.has_units:
            _adopt(units, value.origin, found, name)
        elif value.units.numel() > 1:
            alone = (value.units.expand(shape) < 0) & (found >= 0)
            units.keep(found[alone], f"{name} combines it with what has no units to go with it")
    return found


def _is_even(value: Facts, dimensions: list[int], size: tuple[int, ...]) -> bool:
    """Whether it is the same along these dimensions, whatever the inputs are."""
    return value.fixed is not None and same_along(value.fixed.reshape(size), dimensions)


def _part_of(units: Units, value: Facts, found: Tensor, own: list[int], name: str) -> None:
    """Go with what has a size along some dimensions of the units; which are one is known by now."""
    ids = units.roots(found)
    along = [d for d in range(ids.ndim) if not same_along(ids, [d])]
    if value.origin is not None and not {*own}.isdisjoint(along):
        _adopt(units, value.origin, found, name)
        return
    keep_dimensions(units, value.origin, f"{name} applies it to all others")
    if not joined_along(units, ids, own):
        units.keep(ids, f"{name} combines it with what has no units to go with it")


def _adopt(units: Units, origin: Piece, found: Tensor, name: str) -> None:
    """Let a dimension of a parameter be cut with the units that its elements meet."""
    weight = units.weights[origin.name]
    index, ids = origin.elements.expand(found.shape).reshape(-1), units.roots(found).reshape(-1)
    for d, size in enumerate(weight.shape):
        at = index // math.prod(weight.shape[d + 1 :]) % size
        of_each = torch.full((size,), NONE)
        of_each[at] = ids
        if size > 1 and bool((of_each[at] == ids).all()):
            units.join(units.of(origin.name, d), of_each)
            keep_dimensions(units, origin, f"{name} has it along others", but=d)
            return
    keep_dimensions(units, origin, f"{name} computes with it")
    units.keep(ids, f"{name} combines it with {origin.name!r}, along no one dimension of that")
