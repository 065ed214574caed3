"""What a gradient says of the weight that it comes to: c·w as of an L2, c·sign(w) as of an L1."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import NamedTuple

import torch
from torch import Tensor

from penalize.torch.model.sharding import is_sharded


class Kind(StrEnum):
    """What a gradient could be of."""

    NOTHING = "nothing"
    """The gradient is 0."""

    L2 = "L2"
    """The gradient is c·w, elementwise."""

    L1 = "L1"
    """The gradient is c·sign(w), elementwise."""

    EITHER = "either"
    """One of these fits, and so would other things: the elements are alike, or too few."""

    DATA = "data"
    """Neither of them."""


class Fit(NamedTuple):
    """A kind, and its c."""

    kind: Kind
    coefficient: float


_SAMPLE = 1024
"""How many elements are looked at first: gradients of data fail there already."""

_NO_FIT = Fit(Kind.DATA, 0.0)


def fit(gradient: Tensor, weight: Tensor) -> Fit:
    """The kind that every element of a gradient agrees with."""
    if gradient.is_sparse or gradient.shape != weight.shape or gradient.is_complex():
        return _NO_FIT
    g, w = _flat(gradient), _flat(weight)
    half = torch.finfo(w.dtype).bits < 32
    if half:
        g, w = g.float(), w.float()
    stride = len(g) // _SAMPLE + 1
    if stride > 1 and _fitted(g[::stride], w[::stride], half).kind is Kind.DATA:
        return _NO_FIT
    return _fitted(g, w, half)


def _flat(x: Tensor) -> Tensor:
    """The elements of a tensor; of a sharded one those of all ranks."""
    whole: Tensor = x.full_tensor() if is_sharded(x) else x  # type: ignore[attr-defined]
    return whole.detach().reshape(-1)


def _fitted(g: Tensor, w: Tensor, half: bool) -> Fit:
    largest = float(g.abs().max()) if g.numel() else 0.0
    if not largest:
        return Fit(Kind.NOTHING, 0.0)
    if not math.isfinite(largest):
        return _NO_FIT
    kind, c = _kind_of(g / largest, w, half)  # a GradScaler's would overflow in the sums
    return Fit(kind, c * largest)


def _kind_of(g: Tensor, w: Tensor, half: bool) -> Fit:
    tolerance, needed = (3e-2, 16) if half else (1e-4, 4)
    as_l2 = _multiple(g, w, tolerance)
    as_l1 = _multiple(g, w.sign(), tolerance)
    if as_l2 is not None and (as_l1 is not None or len(g) < needed):
        return Fit(Kind.EITHER, as_l2)
    if as_l2 is not None:
        return Fit(Kind.L2, as_l2)
    if as_l1 is not None:
        # A gradient that is the same everywhere is of a sum as well, and most sums are data.
        has_both_signs = bool((w > 0).any()) and bool((w < 0).any())
        return Fit(Kind.L1 if has_both_signs and len(g) >= needed else Kind.EITHER, as_l1)
    return _NO_FIT


def _multiple(g: Tensor, direction: Tensor, tolerance: float) -> float | None:
    """The c with g = c·direction, elementwise; None if there is none."""
    square = float(direction.dot(direction))
    if not square:
        return None
    c = float(g.dot(direction)) / square
    expected = c * direction
    slack = tolerance * expected.abs() + 1e-2 * tolerance * float(expected.abs().max())
    return c if bool(((g - expected).abs() <= slack).all()) else None
