"""Operators that read units with weights, and write others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from penalize.torch.compacting.calls import Call, first_along, if_zero
from penalize.torch.compacting.readers import Reader, constants_along
from penalize.torch.compacting.units import Units
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
    return call.unknown(f"{call.name} multiplies it by what is no weight", x, weight)


def convolution(
    call: Call, x: Facts, weight: Any, bias: Any = None, *rest: Any, **named: Any
) -> Any:
    """Convolutions of one group, or of one for each channel."""
    given = dict(zip(("stride", "padding", "dilation", "groups"), rest, strict=False)) | named

    def run(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        found: Tensor = call.target(x, w, b, *rest, **named)
        return found

    spread = "is applied at a border of zeros, where it would be another" if _pads(given) else ""
    each, groups = Map(weight, bias, run, 1, spread), given.get("groups", 1)
    if groups == 1:
        return _read(call, x, each)
    around = [0, *range(2, len(x.shape))]
    if groups != x.shape[1] or weight.origin is None or not same_along(x.units, around):
        return call.unknown("a convolution of groups of channels reads it", x, weight, bias)
    # One kernel, or some, for each channel, which goes with them.
    written = call.units.of(weight.origin.name, 0)
    read = first_along(x.units, around).reshape(-1)
    read = read.repeat_interleave(call.meta.shape[1] // groups)
    call.units.join(read, written)
    call.units.keep(written[read < 0], "it reads an input of the model")
    return _written(call, x, each, written)


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
    return _read(call, x, Map(turned, bias, run, 1, "spreads it unevenly"))


def embedding(call: Call, weight: Facts, index: Facts, *_: Any, **__: Any) -> Any:
    """Rows of a table: known where all rows have the same."""
    if weight.origin is None:
        return call.unknown("its table is computed", weight)
    w, units = weight.constant.double(), call.units.of(weight.origin.name, 1)
    call.units.keep(call.units.of(weight.origin.name, 0), "its number is an index")
    call.wiring.writes(weight.origin, units, (w == 0).all(0))
    shape = call.meta.shape
    return Facts(units.expand(shape), (w == w[:1]).all(0).expand(shape), w[0].expand(shape))


def _read(call: Call, x: Facts, by: Map) -> Any:
    """The outputs of a map, and a note of who reads what."""
    dimension = by.dimension % len(x.shape)
    around = [d for d in range(len(x.shape)) if d != dimension]
    sides = _sides(call.units, by.weight)
    has_other = by.bias is not None and (by.bias.origin is None or len(by.bias.shape) != 1)
    if sides is None or has_other or not same_along(x.units, around):
        return call.unknown("its weight is computed, or shared out", x, by.weight, by.bias)
    written, read = sides
    ids = first_along(x.units, around).reshape(-1)
    call.units.join(ids, read)
    call.units.keep(read[ids < 0], "it reads an input of the model")
    w = by.weight.constant.double()
    call.wiring.readers.append(
        Reader(
            weight=by.weight.origin.name,
            units=ids,
            effect=w.flatten(2).sum(2) if w.ndim > 2 else w,
            silent=(w == 0).transpose(0, 1).flatten(1).all(1),
            constant=constants_along(x, dimension),
            bias=None if by.bias is None else by.bias.origin,
            spread=by.spread,
        )
    )
    return _written(call, x, by, written)


def _written(call: Call, x: Facts, by: Map, written: Tensor) -> Facts:
    """The outputs of a map: known where no input that is not known has a weight."""
    w, b = by.weight.constant.double(), None
    call.wiring.writes(by.weight.origin, written, (w == 0).flatten(1).all(1))
    if by.bias is not None:
        b = by.bias.constant.double()
        call.units.join(call.units.of(by.bias.origin.name, 0)[by.bias.origin.elements], written)
    # At a border a constant is another, and how much of a map is border depends on its size.
    known = if_zero(x) if by.spread else x.known
    holes = by.run((~known).double(), (w != 0).double(), None)
    computed = by.run(torch.where(known, x.constant.double(), 0.0), w, b)
    shape = [1] * computed.ndim
    shape[by.dimension] = -1
    return Facts(written.reshape(shape).expand(computed.shape), holes == 0, computed)


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
    others = [d for d in range(index.ndim) if d != side]
    for d, size in enumerate(shape):
        at = index // math.prod(shape[d + 1 :]) % size
        if same_along(at, others):
            at = first_along(at, others).reshape(-1)
            if len({*at.tolist()}) == len(at):
                yield d, units.of(name, d)[at]
