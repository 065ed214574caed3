"""``audit``: the factor with which each declared penalty really enters a loss, or a step, and what
regularizes beside them.

The loss or step is run from the same state with the plan's penalties and without. What they change,
in the gradients that the optimizer is given or in the weights after it, is compared with what one
application would change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from penalize.errors import LossError
from penalize.report import Finding, Measured, Report
from penalize.torch.acting.attachment import Attachment
from penalize.torch.auditing.models_alive import optimizers_of, roster, stepped_by
from penalize.torch.auditing.observer import Observer, mark
from penalize.torch.auditing.replay import Replay, Seen
from penalize.torch.auditing.rerun import all_counts_kept, at_strength
from penalize.torch.auditing.rows import declared, weights
from penalize.torch.auditing.verdicts import findings
from penalize.torch.auditing.weight_decay import measure
from penalize.torch.doors import plans_alive
from penalize.torch.model.targets import Target, joined_in
from penalize.torch.modes.base import Effect, Replayed, gradients_of
from penalize.torch.plan import Plan

TOLERANCE = 1e-3
"""How far a factor may be off by rounding, relative to it."""


def audit(
    loss_or_step: Callable[[], Any], plan_or_model: Plan | nn.Module, *, strict: bool = False
) -> Report:
    """Measure what regularizes a model in a loss, or in an optimizer's step, and how often.

    Each penalty that a plan declares has a row with its factor:

    ========  ===================================================================
    factor    what it means
    ========  ===================================================================
    1         applied once
    0         never applied: it is declared, and neither loss nor step is with it
    0.01      the strength is multiplied again, as by ``0.01 * plan.penalty()``
    2         applied twice, as by two micro-batches that each add the penalty
    (none)    nothing can be said, and the row's note says why
    ========  ===================================================================

    Whatever else regularizes has rows after them, also where there is no plan: the weight decay of
    the optimizers, with the way in which it entered, and factor 1 where that was in the gradient or
    lr·weight_decay·w, as under AdamW; L1 and L2 terms that the loss has
    beside the plan's; and parameters that get a gradient and are held by no optimizer. A row is
    wrong (``row.ok`` is False) if the same weight is penalized twice by these, if a term is added
    anew in each accumulated micro-batch, if a bias or norm is decayed where others are exempt, or
    if a parameter never learns.

    What is called runs several times from the same state, up to seven times with one plan (eleven
    where a weight decay is of an uncommon kind) and twice more for each further one: the model's
    parameters, buffers and gradients, everything that its optimizers step, their states and the
    numbers among their attributes, and PyTorch's random numbers are put back each time, and at the
    end. Parameters that no optimizer holds together with the model's lose their gradients. What
    else it moves, such as a data loader, a scheduler, a ``GradScaler`` or the buffers of another
    model, is moved each time.

    Args:
        loss_or_step: a function without arguments. Either it returns the loss, without calling
            ``backward``; or it does a whole step, with ``optimizer.step()``. A plan that is
            attached acts in the step, and so does weight decay, so pass the step.
        plan_or_model: what :func:`regularize` returned; or a model, planned or not.
        strict: raise unless every penalty enters exactly once and nothing else is wrong.

    Returns:
        A report that prints as a table; its rows have ``name`` and ``factor``.

    Raises:
        LossError: what was passed is neither a loss nor a step that can be measured.
        ModelError: a parameter of the model is lazy, or on the meta device.
        AuditError: strict, and something is wrong.
    """
    if not callable(loss_or_step) or not isinstance(plan_or_model, Plan | nn.Module):
        raise LossError(
            f"audit got a {type(loss_or_step).__name__} and a {type(plan_or_model).__name__}",
            "pass a function that returns the loss or does a step, and the plan or the model: "
            "audit(lambda: criterion(model(x), y) + plan.penalty(), plan)",
        )
    plan = plan_or_model if isinstance(plan_or_model, Plan) else None
    model = plan_or_model if isinstance(plan_or_model, nn.Module) else plan_or_model.model
    replay, observer = Replay(model, all_counts_kept), Observer()
    with ExitStack() as stack:
        for each in plans_alive():
            stack.enter_context(at_strength(each, 1.0))
            stack.enter_context(each.probed(partial(mark, each)))
        with observer.watching():
            once = replay.run(loss_or_step)
        measurement = measure(replay, loss_or_step, once)
        members = roster([model])
        rows: list[Finding] = []
        if plan is not None:
            rows += _measured(loss_or_step, plan, replay, once)
        else:
            measured = partial(_measured, loss_or_step, replay=replay, once=once)
            rows += declared(plans_alive(), members, observer.received, measured)
    optimizers = optimizers_of(members, observer.steps)
    facts = weights(members, observer.received, optimizers, plans_alive(), measurement)
    empty = "nothing regularizes this model here" if plan is None else "no penalty is declared"
    report = Report([*rows, *findings(facts)], empty)
    if strict:
        report.check()
    return report


def _measured(call: Callable[[], Any], plan: Plan, replay: Replay, once: Seen) -> list[Measured]:
    """The rows of a plan's penalties."""
    targets, attached = [t.at(plan.steps) for t in plan.targets()], plan.attachments()
    if attached and not once.groups:
        raise LossError(
            "the plan is attached, and acts in the optimizer's step, but only a loss was passed",
            "pass a function that does the whole step",
        )
    with at_strength(plan, 0.0):
        off = replay.run(call)
    twice = None
    if not attached:
        with at_strength(plan, 2.0):
            twice = replay.run(call)
    with torch.no_grad():
        rows = [
            _by_step(attached[0], target, off, once)
            if twice is None
            else _by_loss(target, off, once, twice)
            for target in targets
        ]
        idle = {t.name for t in targets if _is_idle(t, off, once)}
    if attached and not all(row.ok for row in rows):
        by_hand = _as_by_hand(call, plan, replay, off, once)
        rows = [Measured(row.name, 1.0) if row.name in by_hand else row for row in rows]
    if not any(row.factor and row.name in idle for row in rows):
        return rows
    # Perhaps the penalty is too weak to be seen beside the weights, or the optimizer takes signs.
    with at_strength(plan, _LARGE):
        large = replay.run(call)
    idle = {t.name for t in targets if _is_idle(t, off, large)}
    return [_lost(row) if row.factor and row.name in idle else row for row in rows]


_LARGE = 1e6
"""A strength, times those of a plan, at which no penalty that acts is lost in rounding."""


def _is_idle(target: Target, off: Seen, found: Seen) -> bool:
    """Whether a step does to a weight, and to its state, the same with Ω and without."""
    parameters = [p for p in target.parameters if id(p) in found.groups and p.requires_grad]
    # At the rate 0, as in a warm-up, no gradient moves anything.
    moves = any(float(found.groups[id(p)].get("lr", 0.0)) for p in parameters)
    return moves and all(_is_same(found.moved(p), off.moved(p)) for p in parameters)


def _is_same(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    return len(first) == len(second) and all(map(torch.equal, first, second))


def _lost(row: Measured) -> Measured:
    note = "the optimizer is given its gradient, and steps without it"
    return replace(row, factor=0.0, note=note)


def _by_loss(target: Target, off: Seen, once: Seen, twice: Seen) -> Measured:
    """By the gradients with the loss term, and by whether they grow with it as a factor does."""
    first = _changes(target, once.gradients, off.gradients)
    second = _changes(target, twice.gradients, once.gradients)
    if not _is_close(first, second):
        note = "no fixed factor: clipping, a penalty of a penalty, or another nonlinear function"
        return Measured(target.name, math.nan, note)
    return _fitted(target, first, dict(gradients_of(target)))


def _by_step(attachment: Attachment, target: Target, off: Seen, once: Seen) -> Measured:
    """By what its mode says that one application changes, in the gradients or the weights."""
    run = Replayed(off.weights, off.gradients, once.groups, once.states, once.optimizers)
    effect = attachment.effect(target, run)
    if effect.of == "gradients":
        changes = _changes(target, once.gradients, off.gradients)
    else:
        changes = _changes(target, once.weights, off.weights)
    if effect.is_linear:
        return _fitted(target, changes, effect.changes)
    return _compared(target, effect, changes, off.weights)


def _as_by_hand(
    call: Callable[[], Any], plan: Plan, replay: Replay, off: Seen, once: Seen
) -> set[str]:
    """The targets whose weights are where they are if what a mode says is done to them by hand.

    Where the update follows the weights, a change before it changes that too, by no fixed factor.
    """
    (attachment, *_), targets = plan.attachments(), [t.at(plan.steps) for t in plan.targets()]
    run = Replayed(off.weights, off.gradients, once.groups, once.states, once.optimizers)
    with torch.no_grad():
        effects = {target.name: attachment.effect(target, run) for target in targets}
    linear = {name: e for name, e in effects.items() if e.of == "weights" and e.is_linear}
    changes = {id(p): change for e in linear.values() for p, change in e.changes.items()}

    @torch.no_grad()
    def move(optimizer: Optimizer) -> None:
        for p in stepped_by([optimizer]):
            if id(p) in changes and once.optimizers.get(id(p)) is optimizer:
                p.add_(changes[id(p)])

    with at_strength(plan, 0.0):
        moved = replay.run(call, move)
    return {name for name, effect in linear.items() if _agree(effect, once, moved, off)}


def _agree(effect: Effect, once: Seen, moved: Seen, off: Seen) -> bool:
    """Whether the weights are where an effect by hand takes them, next to what it changes."""
    pairs = [
        (once.weights[id(p)], moved.weights[id(p)], off.weights[id(p)]) for p in effect.changes
    ]
    return bool(pairs) and all(
        bool((found - off).any())
        and float((found - hand).abs().max()) <= TOLERANCE * float((found - off).abs().max())
        for found, hand, off in pairs
    )


def _compared(
    target: Target, effect: Effect, found: Changes, without: Mapping[int, Tensor]
) -> Measured:
    """Whether the weights are where one application takes them."""
    if not effect.changes:
        return Measured(target.name, 0.0)
    if not any(bool(change.any()) for change in effect.changes.values()):
        return Measured(target.name, math.nan, "its proximal step changes nothing here")
    if all(
        torch.allclose(without[id(p)] + found[p], without[id(p)] + change, rtol=1e-4, atol=1e-7)
        for p, change in effect.changes.items()
    ):
        return Measured(target.name, 1.0)
    if not any(bool(change.any()) for change in found.values()):
        return Measured(target.name, 0.0)
    return Measured(target.name, math.nan, "not the proximal step that the optimizer took")


Changes = Mapping[nn.Parameter, Tensor]


def _changes(target: Target, after: Mapping[int, Tensor], before: Mapping[int, Tensor]) -> Changes:
    """What came to each parameter behind the weight."""
    found = {}
    for p in target.binding.parameters():
        first, second = after.get(id(p)), before.get(id(p))
        new = torch.zeros_like(p) if first is None else first
        found[p] = new - second if second is not None else new
    joined = joined_in(target)
    if joined is not None:  # its members may have parts in other groups as well
        return dict(zip(found, joined.own([*found.values()]), strict=True))
    return found


def _fitted(target: Target, changes: Changes, expected: Changes) -> Measured:
    """The factor c with changes = c · expected, by least squares."""
    product = sum(float((changes[p] * e).sum(dtype=torch.float64)) for p, e in expected.items())
    square = sum(float((e * e).sum(dtype=torch.float64)) for e in expected.values())
    if not expected:
        return Measured(target.name, 0.0)
    if square == 0:
        return Measured(target.name, math.nan, "its gradient is 0 here, so it cannot be seen")
    factor = product / square
    if not _is_close(changes, {p: factor * e for p, e in expected.items()}):
        return Measured(target.name, math.nan, "what it changes is no multiple of its gradient")
    factor = 0.0 if abs(factor) < TOLERANCE**2 else factor
    return Measured(target.name, factor, "", TOLERANCE)


def _is_close(first: Changes, second: Changes) -> bool:
    """Alike, but for what a subtraction of rounded numbers leaves."""
    apart = max(float((first[p] - second[p]).abs().max()) for p in second) if second else 0.0
    size = max(float(change.abs().max()) for change in first.values())
    return apart <= 1e-2 * size + 1e-7
