"""Attention: products of what is computed, of which whole heads may go, and no parts of these."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from penalize.torch.compacting.calls import Call, first_along, if_zero, joined_along
from penalize.torch.compacting.elementwise import together
from penalize.torch.compacting.units import once
from penalize.torch.compacting.values import Facts, plain, same_along, values_in

HIDDEN = "it is a constant, not 0, and a mask may hide from a place all that it attends to"


class Side(NamedTuple):
    """One factor of a product.

    Args:
        value: what it is.
        labels: a letter for each of its dimensions.
    """

    value: Facts
    labels: str


def product(call: Call, *args: Any, **kwargs: Any) -> Any:
    """Sums of products, as of queries with keys, and of shares with values."""
    values = values_in([args, kwargs])
    sides = _sides(call, args) if not kwargs or call.name == "baddbmm" else None
    if sides is None or not call.is_real:
        return call.unknown(f"{call.name} multiplies it by what is no weight", *values)
    call.wiring.keep_parameters(values, f"{call.name} takes it")
    found = contracted(call, *sides, tuple(call.meta.shape))
    if call.name == "baddbmm":
        units = together(call.units, [args[0], found], found.shape, call.name)
        return plain(call.meta)._replace(units=units)
    return found


def _sides(call: Call, args: Any) -> tuple[Side, Side, str] | None:
    """The factors of an operator, and the letters of its output; None in a form of its own."""
    if call.name == "einsum":
        left, _, out = args[0].replace(" ", "").partition("->")
        names = left.split(",")
        if len(names) != 2 or not (left.replace(",", "") + out).isalpha() or not out:
            return None
        return Side(args[1][0], names[0]), Side(args[1][1], names[1]), out
    x, y = args[-2:]
    if len(x.shape) < 2 or len(y.shape) < 2:
        return None
    batch = "abcdefgh"[: max(len(x.shape), len(y.shape)) - 2]
    first, second = (batch[len(batch) - len(side.shape) + 2 :] for side in (x, y))
    return Side(x, f"{first}mk"), Side(y, f"{second}kn"), f"{batch}mn"


def contracted(call: Call, x: Side, y: Side, out: str, shape: tuple[int, ...]) -> Facts:
    """Σ x·y over the letters that the output does not have.

    Units are those of whole slices: what is summed over is one unit with all else of its head.
    """
    reason = f"{call.name} sums products over all of them together"
    summed = "".join(sorted({*x.labels, *y.labels} - {*out}))
    order = out + summed
    sides = [side.value for side in (x, y)]
    ids = [_laid_out(side, side.value.units, order) for side in (x, y)]
    dims = range(len(out), len(order))
    if any(name not in x.labels or name not in y.labels for name in summed) or not all(
        joined_along(call.units, each, dims) for each in ids
    ):
        call.wiring.keep(sides, reason)
        return _plain(shape)
    whole = [each.flatten(len(out)).select(-1, 0) if summed else each for each in ids]
    for this, side, other in ((whole[0], sides[0], y), (whole[1], sides[1], x)):
        varying = [d for d in range(len(out)) if not same_along(this, [d])]
        if not other.value.has_units and not _is_even(other, [out[d] for d in varying]):
            call.wiring.keep(
                [side], f"{call.name} multiplies it by what has no units to go with it"
            )
    made, found = (each.expand(shape) for each in whole)
    call.units.join(made, found)
    units = torch.where(made >= 0, made, found) if (once(found) >= 0).any() else made
    return Facts(units, *_known(x, y, order, len(out), shape))


def _plain(shape: tuple[int, ...]) -> Facts:
    found: Facts = plain(torch.empty(shape, device="meta"))
    return found


def _laid_out(side: Side, x: Tensor, order: str) -> Tensor:
    """What belongs to a factor, with a dimension for each letter, of size 1 where it has none."""
    there = [side.labels.index(name) for name in order if name in side.labels]
    x = x.permute(there)
    for d, name in enumerate(order):
        if name not in side.labels:
            x = x.unsqueeze(d)
    return x


def _is_even(side: Side, names: list[str]) -> bool:
    """Whether a factor is the same along these letters, whatever the inputs are."""
    own = [d for d, name in enumerate(side.labels) if name in names and side.value.shape[d] > 1]
    return not own or (side.value.fixed is not None and same_along(side.value.fixed, own))


def _known(
    x: Side, y: Side, order: str, kept: int, shape: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Where a sum of products is a constant: zeros, and equal numbers of which shares are taken."""
    dims = tuple(range(kept, len(order)))
    zeros = [
        _laid_out(side, if_zero(side.value), order).all(dim=dims).expand(shape) for side in (x, y)
    ]
    known, constant = zeros[0] | zeros[1], torch.zeros((), dtype=torch.float64).expand(shape)
    if not x.value.is_share or len(dims) != 1 or x.labels[-1] != order[-1]:
        return known, constant
    parts = [_laid_out(y, part, order) for part in (y.value.known, y.value.constant.double())]
    first = first_along(parts[1], dims)
    equal = (parts[0] & (parts[1] == first)).all(dim=dims).expand(shape)
    return known | equal, torch.where(equal & ~known, first.squeeze(-1).expand(shape), 0.0)


def attention(call: Call, q: Facts, k: Facts, v: Facts, *rest: Any, **named: Any) -> Any:
    """softmax(q kᵀ/√d + mask) v of each head."""
    given = dict(zip(("attn_mask", "dropout_p"), rest, strict=False)) | named
    mask, alike = given.get("attn_mask"), len({len(each.shape) for each in (q, k, v)}) == 1
    if given.get("dropout_p") or not alike:
        return call.unknown("attention with dropout takes it", q, k, v, mask)
    if given.get("enable_gqa") and 1 != k.shape[-3] != q.shape[-3]:
        times = q.shape[-3] // k.shape[-3]
        k, v = (each.moved(lambda part: part.repeat_interleave(times, -3)) for each in (k, v))
    batch = "abcdefgh"[: len(q.shape) - 2]
    shape = (*call.meta.shape[:-1], k.shape[-2])
    scores = contracted(call, Side(q, f"{batch}md"), Side(k, f"{batch}kd"), f"{batch}mk", shape)
    if mask is not None:
        units = together(call.units, [scores, mask], shape, call.name)
        scores = scores._replace(units=units)
    is_share = mask is None or _shows_something(mask)
    shares = _plain(shape)._replace(units=scores.units, is_share=is_share)
    made = contracted(
        call,
        Side(shares, f"{batch}mk"),
        Side(v, f"{batch}kn"),
        f"{batch}mn",
        tuple(call.meta.shape),
    )
    if not is_share:
        call.wiring.note(v.units[v.known & (v.constant != 0)], HIDDEN)
    return made


def _shows_something(mask: Facts) -> bool:
    """Whether no place is hidden from everything: there PyTorch gives 0, and no mean."""
    if mask.fixed is None:
        return False
    shown = mask.fixed if mask.fixed.dtype == torch.bool else mask.fixed > -torch.inf
    return bool(shown.any(-1).all())
