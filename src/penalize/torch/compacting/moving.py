"""Operators that only move elements: they are run on the units as on the numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from penalize.torch.compacting.calls import Call, first_along
from penalize.torch.compacting.readers import Move
from penalize.torch.compacting.units import NONE
from penalize.torch.compacting.values import Facts, constant, mapped, plain, same_along, values_in

SIZED = {
    *("view", "_unsafe_view", "reshape", "unflatten", "expand", "repeat"),
    *("slice", "narrow", "select", "split", "split_with_sizes", "chunk", "unbind", "roll", "tile"),
    *("pixel_shuffle", "pixel_unshuffle", "channel_shuffle"),
}
"""Operators whose arguments may be numbers of units."""


def moves(call: Call, *args: Any, **kwargs: Any) -> Any:
    """The same elements at other places."""
    inputs = values_in([args, kwargs])
    made = _moved(call, inputs, args, kwargs)
    units = [value.units for value in [*inputs, *values_in(made)]]
    call.wiring.moves.append(Move(units, call.name in SIZED, call.owner))
    if call.name in SIZED:
        call.wiring.sized |= {value.origin.name for value in inputs if value.origin is not None}
    return made


def _moved(call: Call, inputs: list[Facts], args: Any, kwargs: Any) -> Any:
    if len(inputs) == 1:
        is_part = call.name in ("slice", "narrow", "select")
        value = _of_any_part(inputs[0], args[1] if len(args) > 1 else 0) if is_part else inputs[0]
        # What is known of a value may lie in memory otherwise than it does.
        is_view = call.name in ("view", "_unsafe_view") and isinstance(args[1], list)
        target = torch.ops.aten.reshape.default if is_view else call.target
        return value.moved(
            lambda x: target(*mapped(lambda _: x, args), **mapped(lambda _: x, kwargs))
        )
    # Several, as of cat: what is a part of a parameter is a value of its own there.
    call.wiring.keep_parameters(inputs, f"{call.name} takes it")
    fields = (lambda v: v.units, lambda v: v.known, lambda v: v.constant.double())
    return Facts(*(call.target(*mapped(f, args), **mapped(f, kwargs)) for f in fields))


def _of_any_part(value: Facts, dimension: int) -> Facts:
    """What is known of a table of which the next input may take another part, as of positions."""
    if not same_along(value.units, [dimension]):  # of units it takes these
        return value
    same = value.constant == first_along(value.constant, [dimension])
    return value._replace(known=value.known & same.all(dimension, keepdim=True))


def pads(call: Call, x: Facts, pad: Any, *args: Any, **kwargs: Any) -> Any:
    """Elements around: copies, or a constant, which is no unit unless it is along the others."""
    mode = args[0] if args else kwargs.get("mode", "constant")
    if call.name == "pad" and mode != "constant":
        return x.moved(lambda part: functional.pad(part.double(), pad, mode=mode).to(part.dtype))
    if call.name not in ("pad", "constant_pad_nd"):
        return x.moved(lambda part: call.target(part.double(), pad).to(part.dtype))
    padded = [len(x.shape) - 1 - i for i in range(len(pad) // 2)]
    if same_along(x.units, padded):
        units = first_along(x.units, padded).expand(call.meta.shape)
        # How much is border depends on the size: whether there is any, and what it is a part of.
        given = [*args, kwargs.get("value")]
        value = next((each for each in given if isinstance(each, int | float)), 0.0)
        known = x.known & (x.constant == value)
    else:
        units = functional.pad(x.units, pad, value=NONE)
        known = x.known
    known = functional.pad(known.double(), pad, value=1.0) > 0
    return Facts(units, known, call.target(x.constant.double(), pad, *args, **kwargs))


def same(call: Call, x: Facts, *_: Any, **__: Any) -> Any:
    """The same elements, as another type or in another place of the memory."""
    if x.constant.is_floating_point() and not call.is_real:  # rounded
        call.wiring.keep_parameters([x], f"{call.name} makes integers of it")
        return plain(call.meta)._replace(units=x.units)
    return x


def new(call: Call, x: Facts, *args: Any, **kwargs: Any) -> Any:
    """One number everywhere, of a size of its own."""
    return constant(call.target(x.constant, *args, **kwargs))


def dropout(call: Call, x: Facts, p: float, train: bool) -> Any:
    """The same elements, in evaluation mode."""
    return call.unknown("dropout changes it in training", x) if train else x


def nothing(call: Call, *_: Any, **__: Any) -> None:
    """No output: checks that PyTorch has put into the trace."""
