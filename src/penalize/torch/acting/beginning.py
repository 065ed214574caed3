"""The beginning of a step whose closure computes the gradients, which an optimizer may move first.

A sharpness-aware optimizer takes its gradients where the loss is larger: it moves the weights,
evaluates its closure, and puts them back. What acts after that evaluation finds other weights than
those that are stepped.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from penalize.errors import ModeError
from penalize.torch.clock import OptimizerStep
from penalize.torch.model.targets import Live
from penalize.torch.modes.base import Mode
from penalize.torch.modes.edits import is_of_pytorch


class Beginning:
    """The weights with which a step began."""

    def __init__(self, targets: Sequence[Live]) -> None:
        held = {id(p): p for target in targets for p in target.parameters}
        self._weights = [(p, p.detach().clone()) for p in held.values()]

    @torch.no_grad()
    def check(self, mode: Mode, step: OptimizerStep) -> None:
        """Raise, and put the weights back, if a closure is evaluated first at others."""
        if all(torch.equal(_local(p), _local(w)) for p, w in self._weights):
            return
        for p, w in self._weights:
            p.copy_(w)
        raise ModeError(
            f"{type(step.optimizer).__name__} moved the weights before it called its closure, as "
            f"sharpness-aware optimizers do, and mode={mode.name!r} has to act where the step "
            "begins (the penalized weights are put back)",
            "attach to the optimizer that it steps within, such as its base_optimizer, where the "
            "penalty acts on the update alone; or add plan.penalty() to the loss",
        )


def begun(mode: Mode, targets: Sequence[Live], step: OptimizerStep) -> Beginning | None:
    """What has to be found again when the closure is called; None where nothing has to."""
    minds = not is_of_pytorch(step.optimizer) and mode.minds_moves(targets)
    return Beginning(targets) if minds else None


def check_closure(mode: Mode, optimizer: Optimizer) -> None:
    """Raise a sentence if a mode cannot act beside the closure of an optimizer."""
    reason = mode.why_not_by_closure(optimizer)
    if reason is not None:
        raise ModeError(
            f"mode={mode.name!r} acts when {type(optimizer).__name__} has called its closure, and "
            f"{reason}",
            'call step() without a closure, or use mode="gradient"',
        )


def _local(tensor: Tensor) -> Tensor:
    """Of a sharded one, what is here."""
    return getattr(tensor, "_local_tensor", tensor)
