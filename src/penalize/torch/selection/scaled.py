"""A plan at another strength."""

from __future__ import annotations

from dataclasses import replace

from penalize.errors import ModelError
from penalize.torch.plan import Plan
from penalize.torch.planned import PlannedWeight


def scaled(plan: Plan, factor: float) -> Plan:
    """A plan of the same model with every strength multiplied by a number.

    It is to be applied in place of the given one, which no longer warns that it is not.

    Raises:
        StrengthError: the factor, or a strength times it, is not a finite number ≥ 0.
        ModelError: the plan penalizes outputs, whose hooks belong to one plan.
    """
    if plan.activities:
        raise ModelError(
            "the plan penalizes outputs of modules, and their hooks belong to it alone",
            "make a plan without activities",
        )
    weights = [_scaled(weight, factor) for weight in plan.weights]
    plan.applied.detached = True
    return Plan(weights, plan.model)


def _scaled(weight: PlannedWeight, factor: float) -> PlannedWeight:
    decided, regularizer = weight.decision.regularizer, weight.regularizer
    if decided is None or regularizer is None:
        return weight
    decision = replace(weight.decision, regularizer=factor * decided)
    return weight._replace(decision=decision, regularizer=factor * regularizer)
