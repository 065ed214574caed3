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
from penalize.torch.clock import Group, OptimizerStep, sign_of
from penalize.torch.kernels import CompiledHalves, HalfSteps, Halvings, Router, Together
from penalize.torch.model.targets import (
    Live,
    Lives,
    Target,
    lives,
    parts_of,
    set_in,
    weight_in,
)
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
        self.joined_router = Router([CompiledHalves])
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
            self.value = total(t.regularizer(t.binding.read()) for t in targets)
        if self._why_plain:
            for router in (self.router, self.joined_router):
                router.pass_by((t.name for t in targets), self._why_plain)
        else:
            targets = self._begun_by_kernels(targets, groups)
        for target in targets:
            gradients = [self.gradient_of(p) for p in target.parameters]
            opened = self.memories.reopen(target)
            factors = [factor_of(p, groups[id(p)], scale) for p in target.parameters]
            g = data_gradient(target, opened, factors)
            given, memory = opened.space.before(g, opened.memory)
            self.memories.note(target, memory)
            parts = parts_of(target, given, gradients, factors)
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(opened.space.xp.like(part, gradient))

    def _begun_by_kernels(self, targets: Sequence[Live], groups: Any) -> list[Live]:
        """The targets that no kernel takes; for the others the step is begun."""
        targets = lives(targets)
        self.memories.begun = []
        ws = targets.plain.parameters
        signs = [sign_of(group) for group in targets.plain.among(groups)]
        rest = self._begin(self.router, targets.plain, ws, self.gradients_of(ws), signs)
        if targets.joined:
            rest += self._begin_joined(targets.joined, groups)
        return rest

    def _begin(
        self,
        router: Router,
        targets: Lives,
        ws: Sequence[Tensor],
        gradients: Sequence[Tensor],
        signs: Sequence[Any],
    ) -> list[Live]:
        columns = targets.names, ws, gradients, targets.regularizers, signs, [False] * len(ws)
        works = Halvings(*columns, average=self.memories.average)
        rest: list[Live] = []
        for job in router.jobs(works):
            its = job.its(targets)
            if not isinstance(job, HalfSteps):
                rest += its
                continue
            own, beside = job.its(ws), job.its(gradients)
            begun = job.before(own, beside, *self.memories.begin(job, its, own))
            self.memories.begun.append((job, begun, its))
        return rest

    def _begin_joined(self, targets: Sequence[Live], groups: Any) -> list[Live]:
        """The same of what spans parameters: of copies as matrices, which are written back."""
        signs = [{factor_of(p, groups[id(p)], None) for p in t.parameters} for t in targets]
        rest = [t for t, its in zip(targets, signs, strict=True) if len(its) > 1]
        alike = [t for t in targets if t not in rest]
        held = [[self.gradient_of(p) for p in target.parameters] for target in alike]
        copies = [weight_in(t, gradients) for t, gradients in zip(alike, held, strict=True)]
        ws = [weight_in(t, t.parameters) for t in alike]
        own = [min(each) for each in signs if len(each) == 1]
        left = self._begin(self.joined_router, lives(alike), ws, copies, own)
        for target, gradients, copy in zip(alike, held, copies, strict=True):
            set_in(target, gradients, copy)
        return rest + left

    def after(self, targets: Sequence[Live], step: OptimizerStep) -> None:
        super().after(targets, step)
        for job, begun, its in self.memories.begun:
            ws = [weight_in(target, target.parameters) for target in its]
            remembered = job.after(ws, begun)
            for target, w in zip(its, ws, strict=True):
                set_in(target, target.parameters, w)
            self.memories.finish(job, its, remembered)
        for target in filter(self.memories.is_open, targets):
            space, memory = self.memories.open(target)
            found_w, memory = space.after(opened_again(target), memory)
            self.memories.note(target, memory)
            parts = parts_of(target, found_w, target.parameters)
            for p, part in zip(target.parameters, parts, strict=True):
                step.assign(p, space.xp.like(part, p))
        self.memories.close(targets, step)

    def effect(self, target: Target, run: Replayed) -> Effect:
        parameters = target.parameters
        if any(id(p) not in run.gradients for p in parameters):
            return Effect("gradients", {})
        live = Live(target.name, target.binding, target.regularizer, parameters)
        kept = self.memories.kept
        opened = self.memories.open(live)
        self.memories.forget_step()
        self.memories.kept = kept
        factors = [factor_of(p, run.groups[id(p)], None) for p in parameters]
        gs = [run.gradients[id(p)] for p in parameters]
        g = weight_in(target, [factor * g for factor, g in zip(factors, gs, strict=True)])
        given, _ = opened.space.before(g, opened.memory)
        parts = zip(parameters, parts_of(target, given, gs, factors), gs, strict=True)
        return Effect("gradients", {p: part - g for p, part, g in parts})


_OF_LBFGS = "its line search and its curvature are of the weights that it left itself"
_MAY_BE_AGAIN = "its closure may be evaluated again"
