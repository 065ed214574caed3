"""The ledger: one (parameter, regularizer) is applied through one door only.

An attachment claims what it applies. Regularizers that differ in strength only are one claim, as
when a notebook cell is run again with another λ on the same optimizer. Claims live as long as the
attachment and its optimizer do, so an optimizer that is made anew leaves no trace.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol
from weakref import WeakSet

from torch import nn

from penalize.errors import AppliedTwiceError
from penalize.regularizers import L1, L2
from penalize.regularizers.base import Regularizer


class Claim(NamedTuple):
    """One regularizer on one parameter, with the name it has in its plan."""

    name: str
    parameter: nn.Parameter
    regularizer: Regularizer


class Door(Protocol):
    """Something that applies penalties in each step."""

    @property
    def claims(self) -> Iterable[Claim]:
        """What it applies."""

    @property
    def alive(self) -> bool: ...

    def __str__(self) -> str: ...


# Not by weak references to parameters: PyTorch cannot swap a parameter that has one (as ``to`` does
# with sharded ones).
_doors: WeakSet[Door] = WeakSet()


def _kinds(claim: Claim) -> Iterator[tuple[int, Regularizer]]:
    """What is claimed, part by part: an L1 + L2 claims an L1 and an L2."""
    l1, l2, rest = claim.regularizer.split()
    for part in ([L1(1.0)] if l1 else []) + ([L2(1.0)] if l2 else []) + [r.unit() for r in rest]:
        yield id(claim.parameter), part


def _taken(claims: Iterable[Claim]) -> dict[str, Door]:
    """The names of claims that a door has already, each with that door."""
    known = {
        kind: door
        for door in list(_doors)
        if door.alive
        for claim in door.claims
        for kind in _kinds(claim)
    }
    found = ((c.name, known.get(kind)) for c in claims for kind in _kinds(c))
    return {name: door for name, door in found if door is not None}


def check_free(claims: Iterable[Claim], newcomer: str, instead: str) -> None:
    """Raise :class:`AppliedTwiceError` if a door applies any of these already."""
    claims = list(claims)
    if _taken(claims):
        gc.collect()  # an optimizer that was dropped may wait in a cycle, as schedulers make one
    taken = _taken(claims)
    if taken:
        raise AppliedTwiceError(list(taken), str(next(iter(taken.values()))), newcomer, instead)


def enter(door: Door) -> None:
    """Enter a door; call :func:`check_free` with its claims first."""
    _doors.add(door)
