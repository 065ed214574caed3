"""What an observer saw, told of parameters by name: the facts that findings are made of."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch.optim import Optimizer

from penalize.report import Found, Level, Measured
from penalize.torch.checks import groups_of
from penalize.torch.decay import Measurement
from penalize.torch.findings import Decay, Entered, Weight
from penalize.torch.fits import Kind
from penalize.torch.modes import Target
from penalize.torch.observe import Received
from penalize.torch.plan import Plan
from penalize.torch.roster import Who
from penalize.torch.terms import Pass, Term

_DECOUPLED = {"AdamW", "Muon", "Adafactor"}
_COUPLED = {"Adadelta", "Adagrad", "Adam", "Adamax", "ASGD", "NAdam", "RAdam", "RMSprop", "SGD"}


def weights(
    members: Mapping[int, Who],
    received: Mapping[int, Received],
    optimizers: Sequence[Optimizer],
    plans: Iterable[Plan],
    measurement: Measurement | None = None,
) -> list[Weight]:
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
        if measurement is not None:
            decays = [measurement.of(seen.parameter, d) if d.amount else d for d in decays]
        got_gradient = seen.got_gradient if seen.parameter.requires_grad else seen.was_stepped
        found.append(
            Weight(
                name=who.name,
                role=who.role,
                aliases=who.aliases,
                held_by=tuple(called[o] for o in holders.get(key, [])),
                is_trainable=seen.parameter.requires_grad,
                got_gradient=got_gradient and bool(optimizers),
                decays=tuple(decays),
                entered=tuple(entered(key, seen.last)),
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


def _kind(optimizer: Optimizer, group: Mapping[str, Any]) -> str:
    kinds = {kind.__name__ for kind in type(optimizer).__mro__}
    if group.get("decoupled_weight_decay") or kinds & _DECOUPLED:
        return "decoupled"
    return "in the gradient" if kinds & _COUPLED else ""


# --- penalties that were written by hand --------------------------------------------------------


def entered(key: int, passes: Sequence[Pass]) -> list[Entered]:
    """What the backward passes of a step gave to one parameter beside data and plans."""
    found = []
    kinds = sorted({_kind_of(term) for p in passes for term in p.terms.get(key, [])})
    data = [p.data for p in passes if p.data is not None]
    for kind in kinds:
        each = [[t for t in p.terms.get(key, []) if _kind_of(t) == kind] for p in passes]
        times = sum(bool(terms) for terms in each)
        total = sum(term.coefficient for terms in each for term in terms)
        shares = any(term.shares_divisor for terms in each for term in terms)
        # Not 1/K exactly: the factor of a GradScaler, and half precision, round.
        is_average = times == len(data) > 1 and all(abs(w * times - 1) < 1e-2 for w in data)
        strength = total / 2 if kind == "L2" else total
        found.append(Entered(kind, strength, times, is_average and not shares))
    return found


def _kind_of(term: Term) -> str:
    return "norm" if term.is_norm else Kind(term.kind).value


# --- plans --------------------------------------------------------------------------------------


def _penalized(plans: Iterable[Plan]) -> dict[int, list[tuple[Plan, Target]]]:
    """The targets of all plans that have an L2, by parameter."""
    found: dict[int, list[tuple[Plan, Target]]] = {}
    for plan in plans:
        for target in plan.targets():
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


def declared(
    plans: Iterable[Plan], members: Mapping[int, Who], received: Mapping[int, Received]
) -> list[Measured | Found]:
    """The rows of the penalties that plans declare on what was stepped."""
    rows: list[Measured | Found] = []
    for plan in plans:
        for target in plan.targets():
            keys = [id(p) for p in target.binding.parameters()]
            seen = [received[key] for key in keys if key in received]
            if not any(each.last or each.optimizers for each in seen):
                continue
            name = members[keys[0]].name if len(keys) == 1 and keys[0] in members else target.name
            what = f"{target.regularizer!r} of a plan"
            passes = max((each.last for each in seen), key=len)
            factor = sum(p.declared.get((plan, target.name), 0.0) for p in passes)
            factor += any(plan.acts_on(o) for each in seen for o in each.optimizers)
            excuse = "" if factor else _excuse(plan)
            if excuse:
                rows.append(Found(name, Level.FACT, excuse, what))
            else:
                rows.append(Measured(name, factor, tolerance=1e-2, what=what))
    return rows


def _excuse(plan: Plan) -> str:
    """Why a plan may act, or may not, though nothing of it is seen."""
    if plan.applied_by_loss:
        return "applied in a compiled loss, where its factor cannot be seen"
    return "detached" if plan.detached else ""
