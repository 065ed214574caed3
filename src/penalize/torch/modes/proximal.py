"""``mode="proximal"``: the proximal operator after the update, with the step that was taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor
from torch.optim import Optimizer

from penalize.backends import torch as xp
from penalize.errors import ModeError
from penalize.halfspace import noted
from penalize.steps import Taken
from penalize.torch.clock import Group, OptimizerStep, groups_of
from penalize.torch.kernels import Shrinkings
from penalize.torch.model.targets import Live, Target, lives, parts_of, weight_in
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
    StepSize,
    is_per_element,
    joined_step,
    joined_taken,
    step_size_of,
    why_not_bounded,
)


class Proximal(Mode):
    """w ← prox of step·Ω at w after the update, with the step that the optimizer really took."""

    name = "proximal"
    spans = True

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
        # Members of several groups of the optimizer may have steps of their own.
        held = groups_of(optimizer)
        several = len({id(held.get(id(p))) for p in target.parameters}) > 1
        target.regularizer.check_step(
            per_element=is_per_element(optimizer) or several,
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
                parameter, *_ = target.parameters
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
        opened = memories.reopen(target)
        factors = [factor_of(p, step.groups[id(p)], step.scale) for p in target.parameters]
        g = data_gradient(target, opened, factors)
        memories.note(target, noted(g, opened.memory, memories.average, opened.space.xp))

    def after(self, targets: Sequence[Live], step: OptimizerStep) -> None:
        step_size = step_size_of(step.optimizer)
        assert step_size is not None  # by check()
        targets = lives(targets)
        plain = targets.plain
        ws, groups = plain.parameters, plain.among(step.groups)
        if is_per_element(step.optimizer):
            state = step.optimizer.state
            of_each = zip(groups, ws, strict=True)
            steps = [step_size(group, state.get(w, {})) for group, w in of_each]
        else:
            distinct = {id(group): group for group in groups}
            of_groups = {key: step_size(group, {}) for key, group in distinct.items()}
            steps = [of_groups[id(group)] for group in groups]
        if step.found_inf is not None:
            self.router.pass_by((t.name for t in targets), MAY_BE_SKIPPED)
            for target, w, taken in zip(plain, ws, steps, strict=True):
                step.assign(w, target.regularizer.prox_taken(w, taken.step(xp)))
        else:
            self.router.shrink(Shrinkings(plain.names, ws, plain.regularizers, steps))
        if targets.joined:
            self._shrink_joined(targets.joined, step, step_size)
        if self.memories is not None:
            for target in filter(self.memories.is_open, targets):
                self._stay(target, step, self.memories)
            self.memories.close(targets, step)
        self.take_back()

    def _shrink_joined(
        self, targets: Sequence[Live], step: OptimizerStep, step_size: StepSize
    ) -> None:
        """The same of what spans parameters: of a copy as one matrix, which is written back."""
        state, ws = step.optimizer.state, []
        alike: list[tuple[Live, Tensor, Taken]] = []
        for target in targets:
            parameters = target.parameters
            its = [step_size(step.groups[id(p)], state.get(p, {})) for p in parameters]
            taken = joined_taken(target, its)
            if taken is None:
                ws.append(_prox(target, weight_in(target, parameters), parameters, its))
            else:
                ws.append(weight_in(target, parameters))
                alike.append((target, ws[-1], taken))
        if alike:
            its_targets, matrices, steps = zip(*alike, strict=True)
            names, regularizers = (
                [t.name for t in its_targets],
                [t.regularizer for t in its_targets],
            )
            self.joined_router.shrink(Shrinkings(names, matrices, regularizers, steps))
        for target, w in zip(targets, ws, strict=True):
            for p, part in zip(
                target.parameters, parts_of(target, w, target.parameters), strict=True
            ):
                step.assign(p, part)

    def _stay(self, target: Live, step: OptimizerStep, memories: Memories) -> None:
        space, memory = memories.open(target)
        found, memory = space.stay(opened_again(target), memory)
        memories.note(target, memory)
        for p, part in zip(
            target.parameters, parts_of(target, found, target.parameters), strict=True
        ):
            step.assign(p, space.xp.like(part, p))

    def effect(self, target: Target, run: Replayed) -> Effect:
        parameters = target.parameters
        if any(id(p) not in run.optimizers for p in parameters):
            return Effect("weights", {}, is_linear=False)
        steps = []
        for p in parameters:
            step_size = step_size_of(run.optimizers[id(p)])
            assert step_size is not None  # or it could not have been attached
            steps.append(step_size(run.groups[id(p)], run.states.get(id(p), {})))
        without = [run.weights[id(p)] for p in parameters]
        moved = parts_of(target, _prox(target, weight_in(target, without), without, steps), without)
        changes = {p: a - b for p, a, b in zip(parameters, moved, without, strict=True)}
        return Effect("weights", changes, is_linear=False)


def _prox(target: Target | Live, w: Tensor, ws: Sequence[Tensor], steps: Sequence[Taken]) -> Tensor:
    """The proximal step of the weight of a target, from what each parameter behind it has taken."""
    taken = joined_step(target, ws, [step.step(xp) for step in steps])
    return cast(Tensor, target.regularizer.prox_taken(w, taken))
