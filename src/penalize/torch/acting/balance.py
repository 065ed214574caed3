"""``plan.balance()``: how the penalties compare with the data, in the middle of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from penalize.errors import OptimizerError
from penalize.tables import Listing, laid_out, number
from penalize.torch.clock import Group
from penalize.torch.model.targets import Target
from penalize.torch.modes.base import gradients_of
from penalize.torch.modes.gradient import stepped_again
from penalize.torch.modes.step_sizes import rate_of

NEGLIGIBLE = 1e-6
"""A penalty whose gradient is a smaller part of that of the data cannot matter."""

DROWNING = 10.0
"""One whose gradient is a greater multiple of that of the data drowns it."""


@dataclass(frozen=True, slots=True)
class Weighed:
    """One penalized parameter, between its data and its penalty."""

    name: str
    penalty: str
    """The regularizer."""

    data_gradient: float
    """The Euclidean norm of the data's gradient, without the penalty."""

    penalty_gradient: float
    """The Euclidean norm of ∇Ω(w); NaN where the penalty has no gradient."""

    ratio: float
    """Penalty over data: infinite where the data has none."""

    shrinkage: float
    """The part of the weight's length that the penalty alone would take away in an epoch; NaN
    where the learning rate is not known."""

    note: str = ""
    """What is wrong with the strength."""


class Balance(Listing[Weighed]):
    """What ``plan.balance()`` returns. Prints as a table, and a second one of what is wrong."""

    columns: ClassVar[Mapping[str, Callable[[Weighed], str]]] = {
        "parameter": lambda row: row.name,
        "regularizer": lambda row: row.penalty,
        "data": lambda row: f"{row.data_gradient:.3g}",
        "penalty": lambda row: number(row.penalty_gradient, 3),
        "ratio": lambda row: number(row.ratio, 3),
        "shrinks per epoch": lambda row: (
            "" if math.isnan(row.shrinkage) else f"{100 * row.shrinkage:.3g} %"
        ),
    }
    empty = "no parameter is penalized"

    @property
    def warnings(self) -> tuple[Weighed, ...]:
        """The rows of strengths that cannot matter, or drown the data."""
        return tuple(row for row in self.rows if row.note)

    def remarks(self) -> Iterator[str]:
        """The second table, or that there is none."""
        columns: dict[str, Callable[[Weighed], str]] = {
            "parameter": lambda row: row.name,
            "ratio": lambda row: number(row.ratio, 3),
            "warning": lambda row: row.note,
        }
        said = laid_out(columns, self.warnings)
        yield f"\n{said}" if said else "no strength is out of proportion"


@torch.no_grad()
def weighed(
    targets: Sequence[Target],
    groups: Mapping[int, Group],
    inside: Collection[str],
    learning_rate: float | None,
    steps: int,
) -> Balance:
    """See ``Plan.balance``; ``groups`` are param groups by the id of a parameter, and ``inside``
    the names of penalties that are in ``.grad`` now.
    """
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise OptimizerError(f"balance got steps={steps!r}", "expected a whole number >= 1")
    parameters = [p for target in targets for p in target.parameters]
    if parameters and all(p.grad is None for p in parameters):
        raise OptimizerError(
            "balance was called while no penalized parameter has a gradient",
            "call it after loss.backward() and before optimizer.step()",
        )
    if stepped_again(targets):
        raise OptimizerError(
            "balance was called when the step was over, and .grad has the penalty in it",
            "call it after loss.backward() and before optimizer.step()",
        )
    return Balance([_weighed(t, groups, t.name in inside, learning_rate, steps) for t in targets])


def _weighed(
    target: Target,
    groups: Mapping[int, Group],
    is_inside: bool,
    learning_rate: float | None,
    steps: int,
) -> Weighed:
    penalized = target.regularizer.differentiable
    pulls = {id(p): g for p, g in gradients_of(target)} if penalized else {}
    data = penalty = along = length = 0.0
    for p in target.parameters:
        pull = pulls.get(id(p))
        gradient = torch.zeros_like(p) if p.grad is None else p.grad.detach()
        if gradient.is_sparse:
            gradient = gradient.to_dense()
        gradient = gradient.double()
        if pull is not None:
            pull = pull.double()
            penalty += float(pull.square().sum())
            along += float((p.double() * pull).sum())
            gradient = gradient - pull if is_inside else gradient
        data += float(gradient.square().sum())
        length += float(p.double().square().sum())
    data, penalty = math.sqrt(data), math.sqrt(penalty)
    if not penalized:  # a constraint, or what counts: it acts by its proximal operator alone
        nan = math.nan
        return Weighed(target.name, repr(target.regularizer), data, nan, nan, nan)
    ratio = penalty / data if data else (math.inf if penalty else 0.0)
    rates = [float(rate_of(groups[id(p)])) for p in target.parameters if id(p) in groups]
    rate = learning_rate if learning_rate is not None else (rates[0] if rates else math.nan)
    each = rate * along / length if length else math.nan
    shrinkage = 1 - max(1 - each, 0.0) ** steps if not math.isnan(each) else math.nan
    return Weighed(
        target.name, repr(target.regularizer), data, penalty, ratio, shrinkage, _note(ratio)
    )


def _note(ratio: float) -> str:
    if ratio > DROWNING:
        return f"drowns the data: over {DROWNING:g} times its gradient"
    if ratio < NEGLIGIBLE:
        return f"cannot matter: under {NEGLIGIBLE:g} of the data's gradient"
    return ""
