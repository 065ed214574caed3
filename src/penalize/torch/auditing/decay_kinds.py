"""The ways in which a weight decay enters a step, told apart by what it changed.

Let w be the weights before the step, u those after it without any decay, v those after it with a
decay so strong that it cannot be overlooked, and x = lr·weight_decay of that. AdamW's v is u − x·w.
The others are named after how theirs differs: in what is shrunk, and by a factor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

COUPLED = "in the gradient"
DECOUPLED = "decoupled"
EITHER = "in the gradient or decoupled, which is the same here"
AFTER = "decoupled, after the update"
DIVIDED = "decoupled, by w/(1 + lr·weight_decay) after the update"
IN_UPDATE = "in the update, and in what the optimizer keeps"
BY_RATIO = "through a trust ratio"

OF_ITS_OWN = "enters in a way of its own"

CLOSE = 1e-2
"""How far a prediction may be off, next to what it predicts."""

_MANY = 16
"""The weights that it takes to tell anything from three terms: of three, these make whatever is."""


class Shrunk(NamedTuple):
    """One step of one parameter, as vectors in float64."""

    before: Tensor
    without: Tensor
    """The weights after it without a decay."""

    found: Tensor
    """The weights after it with one."""

    x: float
    """lr·weight_decay; weight_decay alone where there is no learning rate."""


class Way(NamedTuple):
    """A way, and how much more it shrinks than AdamW's does."""

    kind: str
    times: float

    def predicts(self, step: Shrunk) -> Tensor:
        """Where a step arrives that decays in this way."""
        return _FORMULAS[self.kind][1](step, self.times)


Fit = Callable[[Shrunk], float]
Prediction = Callable[[Shrunk, float], Tensor]


def _ratio(changed: Tensor, shrunk: Tensor, x: float) -> float:
    square = float(shrunk @ shrunk)
    return float(changed @ shrunk) / (x * square) if square and x else math.nan


_FORMULAS: dict[str, tuple[Fit, Prediction]] = {
    DECOUPLED: (
        lambda s: _ratio(s.without - s.found, s.before, s.x),
        lambda s, times: s.without - times * s.x * s.before,
    ),
    AFTER: (
        lambda s: _ratio(s.without - s.found, s.without, s.x),
        lambda s, times: s.without - times * s.x * s.without,
    ),
    DIVIDED: (
        lambda s: _ratio(s.without - s.found, s.found, s.x),
        lambda s, times: s.without / (1 + times * s.x),
    ),
}
"""How much more it is than AdamW's, and where it leads; what is likely first."""


def ways_of(strong: Shrunk) -> list[Way]:
    """The ways in which a strong decay may have entered, if it shrank all weights by one factor.

    Where the update is small beside the decay, several predict the same; and whatever is multiplied
    after it may also be divided. The likely one is first.
    """
    found: list[tuple[float, Way]] = []
    if strong.before.min() == strong.before.max():
        return []  # of one number everything is a multiple
    for kind, (fit, _) in _FORMULAS.items():
        named = Way(kind, fit(strong))
        miss = _apart(strong.found, named.predicts(strong), strong)
        if miss <= CLOSE and named.times > 0:
            found.append((max(miss, 1e-4), named))
    return [named for _, named in sorted(found, key=lambda each: each[0])]


def ratio_of(strong: Shrunk, gradient: Tensor) -> float | None:
    """How much more than AdamW's it shrank, if it also changed the size of what else there is.

    What else there is of an update: the gradient, and what came from earlier ones.
    """
    update = strong.without - strong.before
    terms = torch.stack([-strong.x * strong.before, update, gradient], dim=1)
    if len(update) < _MANY or not bool(update.any()):
        return None
    sizes = terms.norm(dim=0).clamp(min=torch.finfo(terms.dtype).tiny)
    solved = torch.linalg.lstsq(terms / sizes, (strong.found - strong.before)[:, None]).solution
    miss = _apart(strong.found, strong.before + ((terms / sizes) @ solved)[:, 0], strong)
    return float(solved[0] / sizes[0]) if miss <= CLOSE else None


def spread_of(strong: Shrunk) -> str:
    """How much more it shrank than AdamW's, from weight to weight, in words."""
    each = (strong.without - strong.found) / (strong.x * strong.before)
    kept = each[each.isfinite()]
    if not len(kept):
        return ""
    low, high = torch.quantile(kept, torch.tensor([0.1, 0.9], dtype=kept.dtype)).tolist()
    return f": {low:.2g} to {high:.2g} times lr·weight_decay·w, from weight to weight"


def shrunk_by(strong: Shrunk) -> float:
    """The part of a weight by which a decay changes it: the median."""
    each = ((strong.without - strong.found) / strong.before).abs()
    kept = each[each.isfinite()]
    return float(kept.median()) if len(kept) else 0.0


def _apart(first: Tensor, second: Tensor, step: Shrunk) -> float:
    """How far two are apart beyond rounding in single precision, next to what the decay changed."""
    change, size = float((step.found - step.without).abs().max()), float(step.found.abs().max())
    apart = max(0.0, float((first - second).abs().max()) - _SINGLE * size)
    return apart / change if change > 16 * _SINGLE * size else math.inf


_SINGLE = torch.finfo(torch.float32).eps
