"""A loss or step once more, without a trace: at other strengths, its steps not counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from penalize.torch.doors import plans_alive
from penalize.torch.model.targets import Target
from penalize.torch.plan import Plan


@contextmanager
def at_strength(plan: Plan, strength: float) -> Iterator[None]:
    """Within the block, penalties are multiplied by a number; at 0 attachments do not act.

    No trace is left of what was applied in it.
    """
    applied = plan.applied
    before = applied.in_loss, applied.in_compiled_loss, applied.by_loss, applied.warned
    applied.warned, applied.muted = True, strength == 0
    try:
        # In a compiled loss a value is multiplied: its strengths are constants there.
        with _attached_at(plan, strength), plan.probed(lambda _, penalty: strength * penalty):
            yield
    finally:
        applied.in_loss, applied.in_compiled_loss, applied.by_loss, applied.warned = before
        applied.muted = False


@contextmanager
def _attached_at(plan: Plan, strength: float) -> Iterator[None]:
    targets = plan.all_targets
    if plan.attachments():
        plan.all_targets = tuple(_scaled(target, strength) for target in targets)
    try:
        yield
    finally:
        plan.all_targets = targets


def _scaled(target: Target, factor: float) -> Target:
    """The target at another strength; a constraint, which has none, as it is."""
    regularizer = target.regularizer
    if factor in (0, 1) or not regularizer.differentiable:  # at 0 they let the step pass
        return target
    return replace(target, regularizer=factor * regularizer)


@contextmanager
def counts_kept(plan: Plan) -> Iterator[None]:
    """Steps within the block are neither counted nor remembered; gradients wait as before."""
    counts = plan.applied.counts
    attachments = [(each, each.steps, each.pending()) for each in plan.attachments()]
    try:
        yield
    finally:
        plan.applied.counts = counts
        for attachment, counted, pending in attachments:
            attachment.steps = counted
            attachment.forget_step(pending)


def all_counts_kept() -> ExitStack:
    """When it is closed, every plan is at the step at which it was."""
    stack = ExitStack()
    for plan in plans_alive():
        stack.enter_context(counts_kept(plan))
    return stack
