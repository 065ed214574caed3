"""Doors: who applies which penalty, and who has acted. One book, keyed by parameter.

One (parameter, regularizer) is applied through one door only: an attachment, a loss, or a decay of
the optimizer's own. An attachment claims what it applies; regularizers that differ in strength only
are one claim, as when a notebook cell is run again with another λ on the same optimizer. Claims
live as long as the attachment and its optimizer do, so an optimizer that is made anew leaves no
trace.

At each step of any optimizer the plans that have to do with it are looked at, and no others: that
an L2 in the loss meets no weight decay, that a plan acts somewhere, and that an optimizer which was
copied has not lost its attachments.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from typing import Any, NamedTuple, Protocol
from weakref import finalize, ref

from torch import nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.optim import Optimizer

from penalize.errors import AppliedTwiceError, LostAttachmentError, NeverAppliedWarning, some
from penalize.regularizers.base import Regularizer
from penalize.torch.applied import Applied, AppliedPlan
from penalize.torch.clock import Group, OptimizerStep, listen_to_all, stepped_by
from penalize.torch.listener import Listener
from penalize.torch.model.targets import Live, Target

# --- plans ------------------------------------------------------------------------------------


_plans: dict[int, ref[Any]] = {}
_version = object()
"""Another one whenever a plan is made, or a parameter or module registered in any module."""


def enter_plan(plan: AppliedPlan) -> None:
    """Enter a plan: it is looked at in the steps of the optimizers that hold something of it."""
    key = id(plan)
    _plans[key] = ref(plan)
    finalize(plan, _plans.pop, key, None).atexit = False
    _changed()
    watch()


def _changed(*_: Any) -> None:
    global _version  # noqa: PLW0603
    _version = object()


def plans_alive() -> list[Any]:
    """Every plan, made here, copied or unpickled."""
    found = (held() for held in list(_plans.values()))
    return [plan for plan in found if plan is not None]


class _Page(NamedTuple):
    """The plans that have to do with an optimizer, and what that was found for."""

    version: object
    groups: Mapping[int, Group]
    plans: list[ref[Any]]
    turns: Iterator[int] | None
    """Counts how often it was asked for; None where the optimizer has no parameter that is not of
    a plan, and so none that could have come into a model past the registration."""

    def __reduce__(self) -> Any:
        return type(None), ()  # a copy of an optimizer has none


_PAGE = "_penalize_page"
"""An attribute of the optimizer."""


def _concerned(step: OptimizerStep) -> Iterator[Any]:
    """The plans with a parameter that the step's optimizer holds."""
    page: _Page | None = vars(step.optimizer).get(_PAGE)
    if page is None or page.version is not _version or page.groups is not step.groups:
        page = vars(step.optimizer)[_PAGE] = _page_for(step.groups)
        is_due = True
    else:
        is_due = page.turns is not None and next(page.turns) % _EVERY == 0
    plans = [plan for held in page.plans if (plan := held()) is not None]
    if is_due:
        for plan in plans:
            if plan.applied.by_loss or plan.applied.attached:
                plan.check_newcomers(page.groups.keys())
    yield from plans


def _page_for(groups: Mapping[int, Group]) -> _Page:
    ids = groups.keys()
    plans = [p for p in plans_alive() if not ids.isdisjoint(map(id, p.held()))]
    known = {id(parameter) for plan in plans for parameter in plan.held()}
    return _Page(_version, groups, [ref(p) for p in plans], None if ids <= known else count(1))


_EVERY = 64
"""A model is looked through again, for parameters that the optimizer held already and that were
written into it past the registration, once in so many turns: two are a step."""


# --- attachments ------------------------------------------------------------------------------


class Claim(NamedTuple):
    """One regularizer on one parameter, with the name it has in its plan."""

    name: str
    parameter: nn.Parameter
    regularizer: Regularizer


class Door(Protocol):
    """Something that applies penalties in each step: an attachment."""

    @property
    def claims(self) -> Iterable[Claim]:
        """What it applies."""

    @property
    def alive(self) -> bool: ...

    @property
    def optimizers(self) -> list[Optimizer]:
        """What it is attached to, as far as that is alive."""

    def __str__(self) -> str: ...


# By ids, not by weak references to parameters: PyTorch cannot swap a parameter that has one (as
# ``to`` does with sharded ones). A door holds its parameters.
_doors: dict[int, list[ref[Any]]] = {}

MARK = "penalize"
"""What is written into an optimizer's param groups while it has attachments. Its copies and
checkpoints carry the mark but no hooks, and so can be told from it."""

_DOORS = "_penalize_doors"
"""An attribute of the optimizer: the attachments to it, weakly."""


class _Doors(list[ref[Any]]):
    """What is attached to an optimizer; nothing is to a copy of it."""

    def __reduce__(self) -> Any:
        return _Doors, ()

    def __deepcopy__(self, memo: Any) -> _Doors:
        return _Doors()


def enter(door: Door) -> None:
    """Enter a door; call :func:`claims.check_free` with its claims first."""
    held = ref(door)
    ids = {id(claim.parameter) for claim in door.claims}
    for key in ids:
        _doors[key] = [*_doors.get(key, ()), held]
    finalize(door, _forget, ids, held).atexit = False
    for optimizer in door.optimizers:
        for known in {optimizer, stepped_by(optimizer)}:
            vars(known)[_DOORS] = _Doors([*vars(known).get(_DOORS, ()), held])
        mark(optimizer)


def leave(door: Door) -> None:
    """Take a door out of the book: it no longer acts."""
    for optimizer in door.optimizers:
        for known in {optimizer, stepped_by(optimizer)}:
            held = [each for each in vars(known).get(_DOORS, ()) if each() is not door]
            vars(known)[_DOORS] = _Doors(held)
        mark(optimizer)


def _forget(ids: Iterable[int], held: ref[Any]) -> None:
    for key in ids:
        left = [other for other in _doors.get(key, ()) if other is not held]
        if left:
            _doors[key] = left
        else:
            _doors.pop(key, None)


def attached_to(optimizer: Optimizer) -> list[Any]:
    """The doors to this optimizer that act."""
    found = (held() for held in vars(optimizer).get(_DOORS, ()))
    return [door for door in found if door is not None]


def attached_around(optimizer: Optimizer) -> list[Any]:
    """The doors to optimizers whose param groups it shares, as one that wraps another does."""
    mine = {id(group) for group in optimizer.param_groups}
    # Also those that apply nothing to what it holds: the groups are marked all the same.
    doors = {held(): None for each in list(_doors.values()) for held in each}
    return [
        door
        for door in doors
        if door is not None
        and door.alive
        and any(id(group) in mine for o in door.optimizers for group in o.param_groups)
    ]


def doors_on(parameters: Iterable[int]) -> list[Any]:
    """The doors that apply something to parameters with these ids."""
    held = {door: None for key in parameters for door in _doors.get(key, ())}
    found = (door() for door in held)
    return [door for door in found if door is not None and door.alive]


def mark(optimizer: Optimizer) -> bool:
    """Write into the param groups whether it has attachments, and return it."""
    has = bool(attached_to(optimizer))
    for group in optimizer.param_groups:
        if has:
            group[MARK] = True
        else:
            group.pop(MARK, None)
    return has


# --- beside an optimizer's own decay -----------------------------------------------------------


def check_weight_decay(
    targets: Iterable[Target | Live], optimizer: Optimizer, groups: Mapping[int, Group]
) -> None:
    """An L2 beside the optimizer's own weight decay is the same penalty through a second door."""
    if not any(group.get("weight_decay") for group in optimizer.param_groups):
        return
    for target in targets:
        if not target.regularizer.split()[1]:
            continue
        for parameter in target.parameters:
            decay = groups.get(id(parameter), {}).get("weight_decay", 0.0)
            if decay:
                raise AppliedTwiceError(
                    [target.name],
                    f"{target.regularizer!r} of the plan",
                    f"weight_decay={decay!r} of {type(optimizer).__name__}",
                    "Set weight_decay=0 for the parameters that the plan penalizes, or leave the "
                    "L2 out of the rules",
                )


# --- at each step -----------------------------------------------------------------------------


class _Keeper(Listener):
    """Looks at the plans that have to do with an optimizer, when it steps."""

    def begins(self, step: OptimizerStep) -> None:
        optimizer = step.optimizer
        marked = any(MARK in group for group in optimizer.param_groups)
        if _DOORS in vars(optimizer) and attached_to(optimizer):
            mark(optimizer)  # load_state_dict replaces the param groups
        elif marked and not attached_around(optimizer):
            raise LostAttachmentError(type(optimizer).__name__)

    def ready(self, step: OptimizerStep) -> None:
        for plan in _concerned(step):
            if plan.applied.in_compiled_loss:
                plan.check_loss()
            if plan.applied.in_loss:
                penalized = [t for t in plan.standing() if t.name in plan.applied.in_loss]
                check_weight_decay(penalized, step.optimizer, step.groups)

    def ends(self, step: OptimizerStep) -> None:
        for plan in _concerned(step):
            applied: Applied = plan.applied
            acted = applied in step.acted or (
                step.around is not None and any(applied in each.acted for each in step.around.chain)
            )
            stepped = [] if acted and not applied.in_loss else _stepped(plan, step)
            if stepped:
                _note_stepped(plan, stepped, acted, step.optimizer)
            if acted or stepped or (applied.has_outputs and plan.trains(step.groups)):
                applied.count(step)
                if applied.has_outputs:
                    plan.settle(step.optimizer)


def _stepped(plan: Any, step: OptimizerStep) -> list[str]:
    """The names of what a plan penalizes, and a step has moved."""
    return [
        target.name
        for target in plan.standing()
        if any(id(p) in step.groups and p.grad is not None for p in target.parameters)
    ]


def _note_stepped(plan: Any, stepped: list[str], acted: bool, optimizer: Optimizer) -> None:
    applied: Applied = plan.applied
    applied.in_loss = applied.in_loss.difference(stepped)
    if applied.by_loss or applied.detached or acted or applied.warned:
        return
    if any(door in attached_to(optimizer) for door in plan.attachments()):
        return  # it has been told that the closure was never called
    applied.warned = True
    warnings.warn(
        f"{type(optimizer).__name__} is stepping {some(stepped)}, but the plan that penalizes them "
        "is not applied to it. Call plan.attach(optimizer), or add plan.penalty() to the loss.",
        NeverAppliedWarning,
        stacklevel=6,
    )


@functools.cache
def watch() -> None:
    """Look at every step of an optimizer in this process from now on."""
    listen_to_all(_Keeper())
    register_module_parameter_registration_hook(_changed)
    register_module_module_registration_hook(_changed)
