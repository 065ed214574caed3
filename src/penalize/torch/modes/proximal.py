"""``mode="proximal"``: the proximal operator after the update, with the step that was taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor
from torch.optim import Optimizer

from penalize.backends import torch as xp
from penalize.errors import ModeError
from penalize.halfspace import noted
from penalize.torch.clock import Group, OptimizerStep
from penalize.torch.kernels import Shrinkings
from penalize.torch.model.targets import Live, Target, lives
from penalize.torch.modes.base import (
    MAY_BE_SKIPPED,
    Effect,
    Mode,
    Replayed,
    check_can_be_set,
    warn_if_rounded_away,
)
from penalize.torch.modes.gradient import check_dense, gradients_there
from penalize.torch.modes.memories import (
    Memories,
    check_known,
    data_gradient,
    factor_of,
    opened_again,
)
from penalize.torch.modes.step_sizes import (
    KNOWN,
    is_per_element,
    step_size_of,
    why_not_bounded,
)


class Proximal(Mode):
    """w ← prox of step·Ω at w after the update, with the step that the optimizer really took."""

    name = "proximal"

    def __init__(self, *, values: bool = False, average: float | None = None) -> None:
        super().__init__(values=values)
        self.memories = None if average is None else Memories(average)

    def check(self, target: Target, optimizer: Optimizer) -> None:
        check_can_be_set(self, target)
        if step_size_of(optimizer) is None:
            raise ModeError(
                f'mode="proximal" needs the step that the optimizer really takes, and that of '
                f"{type(optimizer).__name__} is not known",
                f'use one of {KNOWN}, or mode="halfspace", which needs no step, or mode="gradient"',
            )
        reason = why_not_bounded(optimizer)
        if reason:
            raise ModeError(
                f'mode="proximal" needs a step that stays bounded, and {type(optimizer).__name__} '
                f"has none: {reason}",
                'use mode="gradient"',
            )
        target.regularizer.check_step(
            per_element=is_per_element(optimizer),
            where=f"{target.name!r} under {type(optimizer).__name__}",
        )
        if self.memories is not None:
            check_known(target)

    def advise(
        self, targets: Sequence[Target], groups: Mapping[int, Group], optimizer: Optimizer
    ) -> None:
        step_size = step_size_of(optimizer)
        if step_size is not None and not is_per_element(optimizer):  # known before it is taken

            def moved(target: Target, w: Tensor, lr: Any) -> Tensor:
                (parameter,) = target.binding.parameters()
                taken = step_size({**groups[id(parameter)], "lr": lr}, {})
                return cast(Tensor, target.regularizer.prox(w, taken.factor))

            warn_if_rounded_away(self, targets, groups, moved)

    def before(self, targets: Sequence[Live], step: OptimizerStep) -> None:
        # Without one the optimizer would take no step here, and the prox would have no size.
        self.gradients_of(lives(targets).parameters)
        if self.memories is not None:
            check_dense(targets, gradients_there(targets))
            for target in targets:
                self._note(target, step, self.memories)

    def _note(self, target: Live, step: OptimizerStep, memories: Memories) -> None:
        (p,) = target.parameters
        opened = memories.reopen(target)
        g = data_gradient(target, opened, factor_of(p, step.groups[id(p)], step.scale))
        memories.note(target, noted(g, opened.memory, memories.average, opened.space.xp))

    def after(self, targets: Sequence[Live], step: OptimizerStep) -> None:
        step_size = step_size_of(step.optimizer)
        assert step_size is not None  # by check()
        targets = lives(targets)
        ws, groups = targets.parameters, targets.among(step.groups)
        if is_per_element(step.optimizer):
            state = step.optimizer.state
            of_each = zip(groups, ws, strict=True)
            steps = [step_size(group, state.get(w, {})) for group, w in of_each]
        else:
            of_groups = {id(group): step_size(group, {}) for group in step.groups.values()}
            steps = [of_groups[id(group)] for group in groups]
        if step.found_inf is not None:
            self.router.pass_by((t.name for t in targets), MAY_BE_SKIPPED)
            for target, w, taken in zip(targets, ws, steps, strict=True):
                step.assign(w, target.regularizer.prox_taken(w, taken.step(xp)))
        else:
            self.router.shrink(Shrinkings(targets.names, ws, targets.regularizers, steps))
        if self.memories is not None:
            for target in filter(self.memories.is_open, targets):
                self._stay(target, step, self.memories)
            self.memories.close(targets, step)
        self.take_back()

    def _stay(self, target: Live, step: OptimizerStep, memories: Memories) -> None:
        (p,) = target.parameters
        space, memory = memories.open(target)
        found, memory = space.stay(opened_again(target), memory)
        memories.note(target, memory)
        step.assign(p, space.xp.like(found, p))

    def effect(self, target: Target, run: Replayed) -> Effect:
        (parameter,) = target.binding.parameters()
        key = id(parameter)
        if key not in run.optimizers:
            return Effect("weights", {}, is_linear=False)
        step_size = step_size_of(run.optimizers[key])
        assert step_size is not None  # or it could not have been attached
        without = run.weights[key]
        taken = step_size(run.groups[key], run.states.get(key, {}))
        moved = target.regularizer.prox_taken(without, taken.step(xp))
        return Effect("weights", {parameter: moved - without}, is_linear=False)
