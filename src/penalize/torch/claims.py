"""Claims: one (parameter, regularizer) is applied through one door only."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator

from penalize.errors import AppliedTwiceError
from penalize.regularizers.base import Regularizer
from penalize.regularizers.elementwise import L1, L2
from penalize.torch.doors import Claim, Door, doors_on
from penalize.torch.model.targets import Target


def claims_of(targets: Iterable[Target]) -> list[Claim]:
    """What a door that applies these targets claims."""
    return [Claim(t.name, p, t.regularizer) for t in targets for p in t.binding.parameters()]


def check_free(claims: Iterable[Claim], newcomer: str, instead: str) -> None:
    """Raise :class:`AppliedTwiceError` if a door applies any of these already."""
    claims = list(claims)
    if _taken(claims):
        gc.collect()  # an optimizer that was dropped may wait in a cycle, as schedulers make one
    taken = _taken(claims)
    if taken:
        raise AppliedTwiceError(list(taken), str(next(iter(taken.values()))), newcomer, instead)


def _taken(claims: Iterable[Claim]) -> dict[str, Door]:
    """The names of claims that a door has already, each with that door."""
    claims = list(claims)
    doors = doors_on(id(claim.parameter) for claim in claims)
    known = {kind: door for door in doors for claim in door.claims for kind in _kinds(claim)}
    found = ((c.name, known.get(kind)) for c in claims for kind in _kinds(c)) if known else ()
    return {name: door for name, door in found if door is not None}


def _kinds(claim: Claim) -> Iterator[tuple[int, Regularizer]]:
    """What is claimed, part by part: an L1 + L2 claims an L1 and an L2."""
    l1, l2, rest = claim.regularizer.split()
    for part in ([L1(1.0)] if l1 else []) + ([L2(1.0)] if l2 else []) + [r.unit() for r in rest]:
        yield id(claim.parameter), part
