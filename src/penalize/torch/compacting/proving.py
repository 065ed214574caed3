"""The largest cut that is proven to change no output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from penalize.errors import CompactError
from penalize.torch.compacting.carrying import without_idle_biases
from penalize.torch.compacting.counts import Attributes, counted, told
from penalize.torch.compacting.cutting import Cut, cut, decided, untold
from penalize.torch.compacting.proof import Difference, Inputs, difference, in_float64, widened
from penalize.torch.compacting.readers import Wiring
from penalize.torch.compacting.structure import elsewhere, ragged

IN_CODE = "its number may stand in the model's code"
TRIES = 8
"""How often the units around a difference are kept before all are whose number may be in code."""


class _Around(NamedTuple):
    """Units that are kept because outputs differed, and how far behind that began."""

    rank: int
    why: dict[int, str]


def proven(
    model: nn.Module, source: nn.Module, wiring: Wiring, inputs: Sequence[Inputs]
) -> tuple[Cut, nn.Module]:
    """The largest cut that is proven: what stands in the code of the model stays.

    It is proven in float64, where the model runs in it, and then in the model's own type.

    Args:
        model: the model.
        source: what is cut: the model, or a copy that has more biases.
        wiring: what it does.
        inputs: an example, and others.

    Raises:
        CompactError: outputs differ, whichever units stay.
    """
    stay: dict[int, str] = {}
    around: list[_Around] = []
    wide = in_float64(source, inputs[0])
    all_in_code = wiring.in_code() | wiring.units.of_all(untold(source) | wiring.sized)
    while True:
        what = decided(wiring, stay | {k: why for each in around for k, why in each.why.items()})
        parts = ragged(wiring, what)
        if parts:
            stay |= dict.fromkeys(parts, IN_CODE)
            continue
        smaller = cut(source, what)
        without_idle_biases(model, smaller, what)
        counts = _counts(model, smaller, wiring, what, inputs)
        smaller = told(smaller, counts)
        found = difference(model, smaller, inputs[:1], roughly=wide is not None)
        if found is None or found.runs:
            misplaced = elsewhere(wiring, smaller, what, inputs[0])
            if misplaced:
                stay |= dict.fromkeys(misplaced, IN_CODE)
                continue
        if found is None and wide is not None:
            narrow = told(cut(wide, what), counts)
            found = difference(wide, narrow, [widened(each) for each in inputs])
        elif found is None:
            found = difference(model, smaller, inputs)
        if found is None:
            return what, smaller
        here = _near(wiring, found, what)
        if here and len(around) < TRIES:
            # What was kept for a difference behind this one may have been kept for nothing.
            why = IN_CODE if not found.runs else _why(found)
            around = [each for each in around if each.rank < found.rank]
            around.append(_Around(found.rank, dict.fromkeys(here, why)))
        elif stay.keys() >= all_in_code:
            raise CompactError(type(model).__name__, found.why)
        else:
            stay |= dict.fromkeys(all_in_code, IN_CODE)


def _counts(
    model: nn.Module, smaller: nn.Module, wiring: Wiring, what: Cut, inputs: Sequence[Inputs]
) -> Attributes:
    def answers(other: nn.Module) -> bool:
        return difference(model, other, inputs[:1]) is None

    if wiring.in_code().isdisjoint(what.gone) and (not what.gone or answers(smaller)):
        return {}
    return counted(model, smaller, wiring, what, answers)


def _why(found: Difference) -> str:
    return f"without it outputs would differ, beginning in {found.place!r}"


def _near(wiring: Wiring, found: Difference, what: Cut) -> set[int]:
    """What goes of the units that are moved and read where a difference begins."""
    if found.place is None:
        return set()
    below = [
        move.units
        for move in wiring.moves
        if move.owner == found.place or move.owner.startswith(f"{found.place}.")
    ]
    return {root for units in below for root in wiring.units.among(units)} & {*what.gone}
