"""The ledger: one (parameter, regularizer) is applied through one door only.

An attachment claims what it applies. Regularizers that differ in strength only are one claim, as
when a notebook cell is run again with another λ on the same optimizer. Claims live as long as the
attachment and its optimizer do, so an optimizer that is made anew leaves no trace.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, MutableMapping
from typing import NamedTuple, Protocol
from weakref import ref

from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from penalize.errors import AppliedTwiceError
from penalize.regularizers.base import Regularizer


class Door(Protocol):
    """Something that applies penalties in each step."""

    @property
    def alive(self) -> bool: ...

    def __str__(self) -> str: ...


class Claim(NamedTuple):
    """One regularizer on one parameter, with the name it has in its plan."""

    name: str
    parameter: nn.Parameter
    regularizer: Regularizer


_claims: MutableMapping[Tensor, dict[Regularizer, ref[Door]]] = WeakTensorKeyDictionary()
"""Parameter → {regularizer at strength one: weak reference to its door}."""


def _door(parameter: Tensor, regularizer: Regularizer) -> Door | None:
    claimed = _claims.get(parameter, {}).get(regularizer.unit())
    door = claimed() if claimed is not None else None
    return door if door is not None and door.alive else None


def check_free(claims: Iterable[Claim], newcomer: str, instead: str) -> None:
    """Raise :class:`AppliedTwiceError` if a door applies any of these already."""
    claims = list(claims)
    if any(_door(c.parameter, c.regularizer) for c in claims):
        gc.collect()  # an optimizer that was dropped may wait in a cycle, as schedulers make one
    taken = {c.name: door for c in claims if (door := _door(c.parameter, c.regularizer))}
    if taken:
        raise AppliedTwiceError(list(taken), str(next(iter(taken.values()))), newcomer, instead)


def claim(claims: Iterable[Claim], door: Door) -> None:
    """Enter a door's claims; call :func:`check_free` first."""
    for _, parameter, regularizer in claims:
        _claims.setdefault(parameter, {})[regularizer.unit()] = ref(door)


def release(claims: Iterable[Claim]) -> None:
    """Strike claims out."""
    for _, parameter, regularizer in claims:
        _claims.get(parameter, {}).pop(regularizer.unit(), None)
