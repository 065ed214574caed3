"""Operators that read units with weights, and write others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from penalize.torch.compacting.attending import product
from penalize.torch.compacting.calls import Call, first_along, if_zero
from penalize.torch.compacting.readers import Move, Reader, constants_along
from penalize.torch.compacting.units import Units, once
from penalize.torch.compacting.values import Facts, same_along


class Map(NamedTuple):
    """A linear map: W x + b along a dimension."""

    weight: Any
    """Outputs × inputs × kernel."""
    bias: Any
    run: Callable[[Tensor, Tensor, Tensor | None], Tensor] = functional.linear
    """Inputs, weight, bias → outputs."""
    dimension: int = -1
    spread: str = ""
    """Why a constant that is not 0 does not become one; empty if it does."""


def linear(call: Call, x: Facts, weight: Any, bias: Any = None) -> Any:
    """W x + b."""
    return _read(call, x, Map(weight, bias))


def addmm(call: Call, bias: Any, x: Any, weight: Any, **kwargs: Any) -> Any:
    """b + x W, the weight being inputs × outputs."""
    if kwargs:
        return call.unknown("addmm scales it", bias, x, weight)
    return _read(call, x, Map(weight.moved(Tensor.t), bias))


def matmul(call: Call, x: Facts, weight: Facts) -> Any:
    """x W, where the second is a weight."""
    if len(weight.shape) == 2 and weight.origin is not None:
        return _read(call, x, Map(weight.moved(Tensor.t), None))
    return product(call, x, weight)


def convolution(
    call: Call, x: Facts, weight: Any, bias: Any = None, *rest: Any, **named: Any
) -> Any:
    """Convolutions of one group, or of one for each channel."""
    given = dict(zip(("stride", "padding", "dilation", "groups"), rest, strict=False)) | named

    def run(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        found: Tensor = call.target(x, w, b, *rest, **named)
        return found

    spread = "is applied at a border of zeros, where it would be another" if _pads(given) else ""
    channels = 1 - len(weight.shape)  # counted from behind: there may be no batch
    each, groups = Map(weight, bias, run, channels, spread), given.get("groups", 1)
    if groups == 1:
        return _read(call, x, each)
    around = [d for d in range(len(x.shape)) if d != len(x.shape) + channels]
    sides = _sides(call.units, weight)
    has_other = _is_other(bias) or sides is None or not same_along(x.units, around)
    if groups != x.shape[channels] or has_other or sides is None:
        return call.unknown("a convolution of groups of channels reads it", x, weight, bias)
    # One kernel, or some, for each channel, which goes with them; the code has their number.
    call.wiring.moves.append(Move([x.units], True, call.owner))
    written = sides[0]
    read = first_along(x.units, around).reshape(-1)
    read = read.repeat_interleave(len(written) // groups)
    call.units.join(read, written)
    call.units.keep(written[read < 0], "it reads an input of the model")
    return _written(call, x, each, written)


def _is_other(bias: Any) -> bool:
    """Whether a bias is no vector of parameters."""
    return bias is not None and (bias.origin is None or len(bias.shape) != 1)


def _pads(given: dict[str, Any]) -> bool:
    padding = given.get("padding", 0)
    if isinstance(padding, str):
        return padding == "same"
    return any([padding] if isinstance(padding, int) else padding)


def transposed(
    call: Call, x: Facts, weight: Any, bias: Any = None, *rest: Any, **named: Any
) -> Any:
    """Transposed convolutions of one group: their weight is inputs × outputs × kernel."""
    if (rest[3] if len(rest) > 3 else named.get("groups", 1)) != 1:
        return call.unknown("a transposed convolution of groups reads it", x, weight, bias)

    def run(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        found: Tensor = call.target(x, w.transpose(0, 1), b, *rest, **named)
        return found

    turned = weight.moved(lambda part: part.transpose(0, 1))
    return _read(call, x, Map(turned, bias, run, 1 - len(weight.shape), "spreads it unevenly"))


def embedding(call: Call, weight: Facts, index: Facts, *_: Any, **__: Any) -> Any:
    """Rows of a table: known where all rows have the same."""
    if weight.origin is None:
        return call.unknown("its table is computed", weight)
    w, units = weight.constant, call.units.of(weight.origin.name, 1)
    call.wiring.keep([index], "it is an index")
    call.units.keep(call.units.of(weight.origin.name, 0), "its number is an index")
    call.wiring.writes(weight.origin, units, (w == 0).all(0))
    shape = call.meta.shape
    return Facts(
        units.expand(shape), (w == w[:1]).all(0).expand(shape), w[0].double().expand(shape)
    )


def _read(call: Call, x: Facts, by: Map) -> Any:
    """The outputs of a map, and a note of who reads what."""
    dimension = by.dimension % len(x.shape)
    around = [d for d in range(len(x.shape)) if d != dimension]
    sides = _sides(call.units, by.weight)
    if sides is None or _is_other(by.bias) or not same_along(x.units, around):
        return call.unknown("its weight is computed, or shared out", x, by.weight, by.bias)
    written, read = sides
    ids = first_along(x.units, around).reshape(-1)
    call.units.join(ids, read)
    call.units.keep(read[ids < 0], "it reads an input of the model")
    w = by.weight.constant
    call.wiring.readers.append(
        Reader(
            weight=by.weight.origin.name,
            units=ids,
            values=w,
            silent=(w == 0).transpose(0, 1).flatten(1).all(1),
            constant=constants_along(x, dimension),
            bias=None if by.bias is None else by.bias.origin,
            spread=by.spread,
        )
    )
    made = _written(call, x, by, written)
    call.wiring.moves.append(Move([x.units, made.units], False, call.owner))
    return made


def _written(call: Call, x: Facts, by: Map, written: Tensor) -> Facts:
    """The outputs of a map: known where no input that is not known has a weight."""
    w, b = by.weight.constant, None
    dead = (w == 0).flatten(1).all(1)
    call.wiring.writes(by.weight.origin, written, dead)
    if by.bias is not None:
        b = by.bias.constant.double()
        call.units.join(call.units.of(by.bias.origin.name, 0)[by.bias.origin.elements], written)
    # At a border a constant is another, and how much of a map is border depends on its size.
    known = if_zero(x) if by.spread else x.known
    shape = [1] * len(call.meta.shape)
    shape[by.dimension] = -1
    if once(known).any():
        holes = by.run((~known).double(), (w != 0).double(), None)
        computed = by.run(torch.where(known, x.constant.double(), 0.0), w.double(), b)
        known = (holes == 0) & computed.isfinite()
    else:
        bias = torch.zeros(len(dead), dtype=torch.float64) if b is None else b
        known, computed = (part.reshape(shape).expand(call.meta.shape) for part in (dead, bias))
    return Facts(written.reshape(shape).expand(call.meta.shape), known, computed)


def _sides(units: Units, weight: Any) -> tuple[Tensor, Tensor] | None:
    """The units of a weight's outputs and inputs, if each is a dimension of one parameter."""
    if not isinstance(weight, Facts) or weight.origin is None or len(weight.shape) < 2:
        return None
    name, index = weight.origin
    found = [list(_dimensions_along(units, name, index, side)) for side in (0, 1)]
    for d, written in found[0]:
        for e, read in found[1]:
            if d != e:
                return written, read
    return None


def _dimensions_along(
    units: Units, name: str, index: Tensor, side: int
) -> Iterator[tuple[int, Tensor]]:
    """The dimensions of a parameter that one of a part of it may be, and the units there."""
    shape = units.weights[name].shape
    if units.are_numbers(index) and index.numel() == math.prod(shape):  # all, seen in some order
        steps = [math.prod(shape[d + 1 :]) for d in range(len(shape))]
        for d, step in enumerate(zip(steps, shape, strict=True)):
            if step == (index.stride(side), index.shape[side]):
                yield d, units.of(name, d)
        return
    others = [d for d in range(index.ndim) if d != side]
    for d, size in enumerate(shape):
        at = index // math.prod(shape[d + 1 :]) % size
        if same_along(at, others):
            at = first_along(at, others).reshape(-1)
            if len({*at.tolist()}) == len(at):
                yield d, units.of(name, d)[at]
