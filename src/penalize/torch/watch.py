"""Watching plans that act nowhere, loss terms that meet an optimizer's weight decay, and copies.

One pair of hooks on all optimizers watches every plan that is alive. Attachments check their own
optimizers themselves.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from penalize.errors import LostAttachmentError, NeverAppliedWarning, some
from penalize.torch.acting.attachment import (
    Attachment,
    attachments_around,
    attachments_of,
    lacks_attachments,
)
from penalize.torch.acting.checks import check_weight_decay, groups_of
from penalize.torch.modes.modes import Group, Target
from penalize.torch.plan import plans
from penalize.torch.acting.stepper import Nesting, when_gradients_are_ready


@functools.cache
def watch() -> None:
    """Watch every plan that is alive, from now on."""
    register_optimizer_step_pre_hook(_before_step)
    register_optimizer_step_post_hook(_after_step)


_acts_before: WeakKeyDictionary[Optimizer, list[tuple[ref[Attachment], int]]] = WeakKeyDictionary()
"""How often the attachments around an optimizer had acted when its step began.

A step that raises leaves its entry, and an attachment has its optimizer: held, neither would go.
"""

_NESTING = "_penalize_nesting"
"""An attribute of the optimizer: after a step that raised, it has that step's frame, which has the
optimizer."""


def _before_step(optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
    if not torch.compiler.is_compiling():  # which cannot trace a look at the stack
        vars(optimizer).setdefault(_NESTING, Nesting()).enter()
    if lacks_attachments(optimizer):
        raise LostAttachmentError(type(optimizer).__name__)
    _acts_before[optimizer] = [(ref(a), a.acts) for a in attachments_around(optimizer)]
    return when_gradients_are_ready(optimizer, args, kwargs, _check_losses)


def _check_losses(optimizer: Optimizer) -> None:
    for plan in list(plans):
        if plan.in_gradients:
            penalized = [t for t in plan.targets() if t.name in plan.in_gradients]
            check_weight_decay(penalized, optimizer, groups_of(optimizer))


def _after_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    # Those of an optimizer that it wraps, or that wraps it, if they acted in this step.
    around = [(held(), count) for held, count in _acts_before.pop(optimizer, [])]
    acting = {a for a, count in around if a is not None and (a.acts > count or a.is_stepping)}
    acting.update(attachments_of(optimizer))
    nesting: Nesting | None = getattr(optimizer, _NESTING, None)
    outermost = nesting is None or nesting.leave()
    for plan in list(plans):
        groups = groups_of(optimizer)
        stepped = [t.name for t in plan.targets() if _was_stepped(t, groups)]
        moved = outermost and (bool(stepped) or plan.trains(groups))
        if moved:
            plan.count_step(optimizer)
        plan.in_gradients = plan.in_gradients.difference(stepped)
        applied = plan.applied_by_loss or plan.detached or not acting.isdisjoint(plan.attachments())
        if stepped and not applied and not plan.warned:
            plan.warned = True
            warnings.warn(
                f"{type(optimizer).__name__} is stepping {some(stepped)}, but the plan that "
                "penalizes them is not applied to it. Call plan.attach(optimizer), or add "
                "plan.penalty() to the loss.",
                NeverAppliedWarning,
                stacklevel=2,
            )
        if moved:
            plan.settle(optimizer)


def _was_stepped(target: Target, groups: Mapping[int, Group]) -> bool:
    parameters = target.binding.parameters()
    return any(id(p) in groups and p.grad is not None for p in parameters)
