"""What an observer saw, told of parameters by name: the facts that findings are made of."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch.optim import Optimizer

from penalize.report import Found, Level, Measured
from penalize.torch.auditing.gradient_kinds import Kind
from penalize.torch.auditing.loss_terms import LossTerm
from penalize.torch.auditing.measured_decay import Measurement
from penalize.torch.auditing.models_alive import Who
from penalize.torch.auditing.observer import Received
from penalize.torch.auditing.verdicts import AuditedWeight, Decay, Entered
from penalize.torch.clock import groups_of
from penalize.torch.doors import attached_around, attached_to
from penalize.torch.model.targets import Target
from penalize.torch.plan import Plan

_DECOUPLED = {"AdamW", "Muon", "Adafactor"}
_COUPLED = {"Adadelta", "Adagrad", "Adam", "Adamax", "ASGD", "NAdam", "RAdam", "RMSprop", "SGD"}


def weights(
    members: Mapping[int, Who],
    received: Mapping[int, Received],
    optimizers: Sequence[Optimizer],
    plans: Iterable[Plan],
    measurement: Measurement | None = None,
) -> list[AuditedWeight]:
    """Each parameter of the models that took part: that got a gradient, or was stepped."""
    called = named(optimizers)
    penalized = _penalized(plans)
    holders: dict[int, list[Optimizer]] = {}
    for optimizer in optimizers:
        for key in groups_of(optimizer):
            holders.setdefault(key, []).append(optimizer)
    found = []
    for key, who in members.items():
        seen = received.get(key)
        if seen is None:
            continue
        decays = [decay_of(called[o], o, group) for o, group in seen.optimizers.items()]
        decays = [_measured(d, seen, measurement) if d.amount else d for d in decays]
        got_gradient = seen.got_gradient if seen.is_trainable else seen.was_stepped
        found.append(
            AuditedWeight(
                name=who.name,
                role=who.role,
                aliases=who.aliases,
                held_by=tuple(called[o] for o in holders.get(key, [])),
                is_trainable=seen.is_trainable,
                got_gradient=got_gradient and bool(optimizers),
                was_stepped=seen.was_stepped,
                decays=tuple(decays),
                entered=tuple(entered(key, seen)),
                declared=_in_words(seen, penalized.get(key, [])),
            )
        )
    return found


def named(optimizers: Sequence[Optimizer]) -> dict[Optimizer, str]:
    """What to call each: its class, with a number where there are several of it."""
    kinds = [type(optimizer).__name__ for optimizer in optimizers]
    return {
        optimizer: f"{kind} {kinds[:i].count(kind) + 1}" if kinds.count(kind) > 1 else kind
        for i, (optimizer, kind) in enumerate(zip(optimizers, kinds, strict=True))
    }


# --- weight decay -----------------------------------------------------------------------------


def decay_of(called: str, optimizer: Optimizer, group: Mapping[str, Any]) -> Decay:
    """The weight decay of a param group, as it is set."""
    amount = float(group.get("weight_decay") or 0.0)
    default = inspect.signature(type(optimizer).__init__).parameters.get("weight_decay")
    is_default = default is not None and all(
        each.get("weight_decay") == default.default for each in optimizer.param_groups
    )
    return Decay(called, amount, _kind(optimizer, group), is_default)


def _measured(decay: Decay, seen: Received, measurement: Measurement | None) -> Decay:
    if measurement is None:
        return decay if seen.was_stepped else decay._replace(note="no gradient came")
    if len(seen.optimizers) > 1:
        return decay._replace(note="not measured: several optimizers step it")
    return measurement.of(seen.parameter, decay)


def _kind(optimizer: Optimizer, group: Mapping[str, Any]) -> str:
    kinds = {kind.__name__ for kind in type(optimizer).__mro__}
    if group.get("decoupled_weight_decay") or kinds & _DECOUPLED:
        return "decoupled"
    return "in the gradient" if kinds & _COUPLED else ""


# --- penalties that were written by hand --------------------------------------------------------


def entered(key: int, seen: Received) -> list[Entered]:
    """What the backward passes of a step gave to one parameter beside data and plans."""
    found, passes = [], seen.last
    kinds = sorted({_kind_of(term) for p in passes for term in p.terms.get(key, [])})
    data = [p.data for p in passes if p.data is not None]
    for kind in kinds:
        each = [[t for t in p.terms.get(key, []) if _kind_of(t) == kind] for p in passes]
        times = sum(bool(terms) for terms in each)
        terms = [term for terms in each for term in terms]
        total = sum(term.coefficient for term in terms) * (_divided_after(seen) or 1.0)
        level = Level.FACT
        if times == len(data) > 1 and not any(term.shares_divisor for term in terms):
            # Not 1/K exactly: the factor of a GradScaler, and half precision, round.
            if all(abs(w * times - 1) < 1e-2 for w in data):
                hides = any(_may_hold_divisor(s, times) for term in terms for s in term.scales)
                level = Level.LOOK if hides else Level.WRONG
            elif any(p.is_normalized for p in passes):
                level = Level.LOOK
        found.append(Entered(kind, total / 2 if kind == "L2" else total, times, level))
    return found


def _may_hold_divisor(scale: float, times: int) -> bool:
    """Whether a constant may be a strength over K: K times it is a rounder number."""
    return math.isnan(scale) or _digits(scale * times) < _digits(scale)


def _digits(number: float) -> int:
    return len(f"{abs(number):.5e}".partition("e")[0].rstrip("0").rstrip(".").replace(".", ""))


def _divided_after(seen: Received) -> float | None:
    """1/K where the gradient of K passes was divided by K before the step; None if not known.

    Another factor may be that of clipping, or of both.
    """
    passes = seen.last
    for undone in {1.0, passes[-1].scale} if passes else ():
        for divisor in {1, len(passes)}:
            if abs(seen.rescaled * undone * divisor - 1) < 1e-3:
                return 1 / divisor
    return 1.0 if math.isnan(seen.rescaled) else None


def _kind_of(term: LossTerm) -> str:
    return "norm" if term.is_norm else Kind(term.kind).value


# --- plans --------------------------------------------------------------------------------------


def _penalized(plans: Iterable[Plan]) -> dict[int, list[tuple[Plan, Target]]]:
    """The targets of all plans that have an L2, by parameter."""
    found: dict[int, list[tuple[Plan, Target]]] = {}
    for plan in plans:
        for target in plan.standing():
            if target.regularizer.split()[1]:
                for p in target.binding.parameters():
                    found.setdefault(id(p), []).append((plan, target))
    return found


def _in_words(seen: Received, penalized: Sequence[tuple[Plan, Target]]) -> str:
    """The declared L2 that acts on a parameter."""
    return " and ".join(
        f"{target.regularizer!r} of a plan"
        for plan, target in penalized
        if plan.attachments() or any((plan, target.name) in p.declared for p in seen.last)
    )


Measure = Callable[[Plan], Iterable[Measured]]


def declared(
    plans: Iterable[Plan],
    members: Mapping[int, Who],
    received: Mapping[int, Received],
    measure: Measure | None = None,
) -> list[Measured | Found]:
    """The rows of the penalties that plans declare on what was stepped.

    Args:
        measure: measures the penalties of a plan, all that are not excused.
    """
    rows: list[Measured | Found] = []
    for plan in plans:
        found: dict[str, Measured | Found] = {}
        for target in plan.standing():
            keys = [id(p) for p in target.binding.parameters()]
            seen = [received[key] for key in keys if key in received]
            if any(each.last or each.optimizers for each in seen):
                only = members.get(keys[0]) if len(keys) == 1 else None
                name = only.name if only is not None else target.name
                found[target.name] = _traced(plan, target, name, seen)
        if measure is not None and any(isinstance(row, Measured) for row in found.values()):
            for each in measure(plan):
                row = found.get(each.name)
                if isinstance(row, Measured) and not math.isnan(each.factor):
                    found[each.name] = replace(each, name=row.name, what=row.what)
        rows.extend(found.values())
    return rows


def _traced(plan: Plan, target: Target, name: str, seen: Sequence[Received]) -> Measured | Found:
    """What the backward passes say of a penalty."""
    what = f"{target.regularizer!r} of a plan"
    most = max(seen, key=lambda each: len(each.last))
    factor = sum(p.declared.get((plan, target.name), 0.0) for p in most.last)
    divided = _divided_after(most)
    if divided is None and len(most.last) > 1 and abs(factor - 1) > 1e-2:
        says = (
            f"{factor:.4g} times in {len(most.last)} backward passes, after which the gradient was "
            "rescaled: by their number, or by clipping?"
        )
        return Found(name, Level.LOOK, says, what)
    factor *= divided or 1.0
    factor += any(_acts_in(plan, o) for each in seen for o in each.optimizers)
    why = "" if factor else _why_not_seen(plan)
    if why:
        return Found(name, Level.FACT, why, what)
    return Measured(name, factor, tolerance=1e-2, what=what)


def _acts_in(plan: Plan, optimizer: Optimizer) -> bool:
    """Whether an attachment of the plan acts in the steps of an optimizer."""
    mine = plan.attachments()
    return any(a in mine for a in (*attached_to(optimizer), *attached_around(optimizer)))


def _why_not_seen(plan: Plan) -> str:
    """Why a plan may act, or may not, though nothing of it is seen."""
    if plan.applied.by_loss:
        return "applied in a compiled loss, where its factor cannot be seen"
    return "detached" if plan.applied.detached else ""
