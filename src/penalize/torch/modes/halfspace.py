"""``mode="halfspace"``: exact zeros under any optimizer, on mini-batches.

The rule is in :mod:`penalize.halfspace`. Here it is put around a step of PyTorch: what is given in
place of the gradient before it, and zeros after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor
from torch.optim import LBFGS, Optimizer

from penalize.errors import ModeError
from penalize.halfspace import AVERAGE, check_some_kinks
from penalize.torch.clock import Group, OptimizerStep
from penalize.torch.kernels import CompiledHalves, HalfSteps, Halvings, Router, Together
from penalize.torch.model.targets import Live, Target, lives
from penalize.torch.modes.base import (
    MAY_BE_SKIPPED,
    Effect,
    Replayed,
    check_can_be_set,
    total,
    warn_if_rounded_away,
)
from penalize.torch.modes.edits import why_not_edited
from penalize.torch.modes.gradient import Gradient
from penalize.torch.modes.memories import (
    Memories,
    check_known,
    data_gradient,
    factor_of,
    opened_again,
)


class Halfspace(Gradient):
    """As ``"gradient"``; zeros stay until the averaged gradient overcomes the penalty."""

    name = "halfspace"

    def __init__(self, *, values: bool = False, average: float = AVERAGE) -> None:
        super().__init__(values=values)
        self.memories: Memories = Memories(average)
        self.router = Router([CompiledHalves, Together])
        self._why_plain = ""

    def check(self, target: Target, optimizer: Optimizer) -> None:
        super().check(target, optimizer)
        check_can_be_set(self, target)
        check_known(target)
        reason = _OF_LBFGS if isinstance(optimizer, LBFGS) else why_not_edited(optimizer)
        if reason is not None:
            raise ModeError(
                f'mode="halfspace" sets weights to 0 after the step of {type(optimizer).__name__}, '
                f"and {reason}",
                'use mode="gradient"',
            )

    def check_all(self, targets: Sequence[Target]) -> None:
        check_some_kinks({target.name: target.regularizer for target in targets})

    def advise(
        self, targets: Sequence[Target], groups: Mapping[int, Group], optimizer: Optimizer
    ) -> None:
        def moved(target: Target, w: Tensor, lr: Any) -> Tensor:
            return cast(Tensor, w - lr * target.regularizer.gradient(w))

        held = [groups[id(p)] for target in targets for p in target.parameters]
        if all(isinstance(group.get("lr"), float | int | Tensor) for group in held):
            warn_if_rounded_away(self, targets, groups, moved)

    def before(self, targets: Sequence[Live], step: OptimizerStep) -> None:
        self._why_plain = ""
        if step.has_closure:
            self._why_plain = _MAY_BE_AGAIN
        elif step.scale is not None or step.found_inf is not None:
            self._why_plain = MAY_BE_SKIPPED
        super().before(targets, step)

    def add(self, targets: Sequence[Live], groups: Any, scale: Tensor | None) -> None:
        if self._values:
            self.value = total(t.regularizer(t.parameters[0]) for t in targets)
        if self._why_plain:
            self.router.pass_by((t.name for t in targets), self._why_plain)
        else:
            targets = self._begun_by_kernels(targets, groups)
        for target in targets:
            (p,) = target.parameters
            gradient = self.gradient_of(p)
            opened = self.memories.reopen(target)
            factor = factor_of(p, groups[id(p)], scale)
            g = data_gradient(target, opened, factor)
            given, memory = opened.space.before(g, opened.memory)
            self.memories.note(target, memory)
            gradient.copy_(opened.space.xp.like(factor * given, gradient))

    def _begun_by_kernels(self, targets: Sequence[Live], groups: Any) -> list[Live]:
        """The targets that no kernel takes; for the others the step is begun."""
        targets = lives(targets)
        ws, gradients = targets.parameters, self.gradients_of(targets.parameters)
        signs = [-1.0 if group.get("maximize") else 1.0 for group in targets.among(groups)]
        on_device = [False] * len(ws)
        columns = targets.names, ws, gradients, targets.regularizers, signs, on_device
        works = Halvings(*columns, average=self.memories.average)
        rest: list[Live] = []
        self.memories.begun = []
        for job in self.router.jobs(works):
            its = job.its(targets)
            if not isinstance(job, HalfSteps):
                rest += its
                continue
            begun = job.before(job.its(ws), job.its(gradients), *self.memories.begin(job, its))
            self.memories.begun.append((job, begun, its))
        return rest

    def after(self, targets: Sequence[Live], step: OptimizerStep) -> None:
        super().after(targets, step)
        for job, begun, its in self.memories.begun:
            ws = [target.parameters[0] for target in its]
            self.memories.finish(job, its, job.after(ws, begun))
        for target in filter(self.memories.is_open, targets):
            (p,) = target.parameters
            space, memory = self.memories.open(target)
            found_w, memory = space.after(opened_again(target), memory)
            self.memories.note(target, memory)
            step.assign(p, space.xp.like(found_w, p))
        self.memories.close(targets, step)

    def effect(self, target: Target, run: Replayed) -> Effect:
        (p,) = target.parameters
        if id(p) not in run.gradients:
            return Effect("gradients", {})
        live = Live(target.name, target.binding, target.regularizer, target.parameters)
        kept = self.memories.kept
        opened = self.memories.open(live)
        self.memories.forget_step()
        self.memories.kept = kept
        factor = factor_of(p, run.groups[id(p)], None)
        g = run.gradients[id(p)]
        given, _ = opened.space.before(factor * g, opened.memory)
        return Effect("gradients", {p: factor * given - g})


_OF_LBFGS = "its line search and its curvature are of the weights that it left itself"
_MAY_BE_AGAIN = "its closure may be evaluated again"
