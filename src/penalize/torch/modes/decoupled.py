"""``mode="decoupled"``: w ← w − lr·∇Ω(w) before the update, as AdamW does with its weight decay."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor
from torch.optim import LBFGS, Optimizer

from penalize.errors import InterruptedStepWarning, ModeError, some
from penalize.regularizers.base import Regularizer
from penalize.torch.clock import Group, OptimizerStep
from penalize.torch.kernels import Additions
from penalize.torch.model.targets import Live, Lives, Target, lives
from penalize.torch.modes.base import (
    MAY_BE_SKIPPED,
    Effect,
    Mode,
    Replayed,
    check_can_be_set,
    gradients_of,
    total,
    warn_if_rounded_away,
)
from penalize.torch.modes.edits import why_not_edited, why_not_sized
from penalize.torch.modes.step_sizes import rate_of


class Decoupled(Mode):
    """w ← w − lr·∇Ω(w) before the update."""

    name = "decoupled"
    spans = True
    once = True

    def check(self, target: Target, optimizer: Optimizer) -> None:
        target.regularizer.check_gradient(repr(target.name))
        check_can_be_set(self, target)
        kind = type(optimizer).__name__
        if isinstance(optimizer, LBFGS) or not _has_rate(optimizer):
            raise ModeError(
                f'mode="decoupled" needs a learning rate that scales the update, and {kind} has '
                "none",
                'use mode="gradient"',
            )
        reason = why_not_edited(optimizer) or why_not_sized(optimizer)
        if reason is not None:
            raise ModeError(
                f'mode="decoupled" moves the weights beside the optimizer by its lr, which cannot '
                f"be done with this {kind}: {reason}",
                'use mode="gradient"',
            )

    def why_not_by_closure(self, optimizer: Optimizer) -> str | None:
        return why_not_edited(optimizer, in_closure=True)

    def advise(
        self, targets: Sequence[Target], groups: Mapping[int, Group], optimizer: Optimizer
    ) -> None:
        def moved(target: Target, w: Tensor, lr: Any) -> Tensor:
            return _decayed(w, target.regularizer, lr)

        warn_if_rounded_away(self, targets, groups, moved)

    def before(self, targets: Sequence[Live], step: OptimizerStep) -> None:
        targets = lives(targets)
        # No element is in two of them, so that none is moved before another is read.
        self._move(targets.plain, step)
        if self._values and targets.joined:
            value = total(t.regularizer(t.binding.read()) for t in targets.joined)
            self.value = total([self.value, value])
        for target in targets.joined:
            for p, gradient in gradients_of(target):
                step.assign(p, p - rate_of(step.groups[id(p)]) * gradient)

    def _move(self, targets: Lives, step: OptimizerStep) -> None:
        ws, held = targets.parameters, targets.among(step.groups)
        keys = list(map(id, held))
        distinct = dict(zip(keys, held, strict=True))
        rates = {key: rate_of(group) for key, group in distinct.items()}
        if step.found_inf is not None:
            if self._values:
                self.value = total(t.regularizer(t.parameters[0]) for t in targets)
            self.router.pass_by((t.name for t in targets), MAY_BE_SKIPPED)
            for target, w, key in zip(targets, ws, keys, strict=True):
                step.assign(w, _decayed(w, target.regularizer, rates[key]))
            return
        on_device = [isinstance(rates[key], Tensor) for key in keys]
        scales = {key: -rate for key, rate in rates.items()}
        additions = Additions(targets.names, ws, ws, targets.regularizers, keys, on_device)
        if self._values:
            self.value = total(self.router.value_and_add(additions, scales))
        else:
            self.router.add(additions, scales)

    def broken_off(self, targets: Sequence[Live], step: OptimizerStep) -> None:
        super().broken_off(targets, step)
        warnings.warn(
            f"an earlier step of {type(step.optimizer).__name__} raised after the penalty had "
            f"moved {some(t.name for t in targets)}, and this one moves them again. Load the "
            "weights of before, if that matters.",
            InterruptedStepWarning,
            stacklevel=6,
        )

    def effect(self, target: Target, run: Replayed) -> Effect:
        changes = {
            p: -run.groups[id(p)]["lr"] * gradient
            for p, gradient in gradients_of(target)
            if id(p) in run.groups
        }
        return Effect("weights", changes)


def _decayed(w: Tensor, regularizer: Regularizer, lr: float | Tensor) -> Tensor:
    """w − lr·∇Ω(w)."""
    l1, l2, rest = regularizer.split()
    if l1 or rest:
        return cast(Tensor, w - lr * regularizer.gradient(w))
    return w * (1 - lr * (2 * l2))  # rounded as AdamW does it, bit for bit


def _has_rate(optimizer: Optimizer) -> bool:
    return all(group.get("lr") is not None for group in optimizer.param_groups)
