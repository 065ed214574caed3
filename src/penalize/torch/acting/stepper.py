"""An attachment in the steps of one optimizer: when, in a step, its mode acts, and on what."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import attrgetter, is_
from typing import Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from penalize.errors import ModeError, NeverAppliedWarning, ReplacedParameterError
from penalize.torch.applied import Applied, Count
from penalize.torch.clock import Group, OptimizerStep
from penalize.torch.doors import check_weight_decay
from penalize.torch.listener import Listener
from penalize.torch.model.bindings import Direct
from penalize.torch.model.targets import Live, Lives, Target, doubled
from penalize.torch.modes.base import Active, Mode
from penalize.torch.modes.edits import is_of_pytorch


class Source(Protocol):
    """The plan, which has the regularizers."""

    @property
    def applied(self) -> Applied: ...

    @property
    def all_targets(self) -> tuple[Target, ...]:
        """Whatever it penalizes; another tuple once any of it has changed."""


class Stepper(Listener, Active):
    """Acts once in each step of one optimizer.

    Args:
        plan: whose penalties it applies.
        names: those of the weights that this optimizer steps.
        trainable: those of them that are trainable now.
        mode: how it acts.
    """

    def __init__(
        self, plan: Source, names: Iterable[str], trainable: Iterable[str], mode: Mode
    ) -> None:
        self.mode = mode
        self.detached = False
        """Whether it is to let all steps pass."""

        self.count = Count()
        """How many steps there were: what schedules are functions of."""

        self._plan = plan
        self._names = frozenset(names)
        self._stepped = set(trainable)
        self._acted = False
        self._waits = False
        """Whether the penalty is in the gradients of before a step, whose closure is not called
        yet."""

        self._takes_closures = False
        """Whether it is known that the mode can act beside the optimizer's closure."""

        self._found: FoundTargets | None = None
        self._live = Lives()

    @property
    def targets(self) -> Sequence[Target]:
        """What this optimizer steps, trainable now or not."""
        return [target for target in self._plan.all_targets if target.name in self._names]

    def begins(self, step: OptimizerStep) -> None:
        self._acted = False
        if self.mode.memories is not None:
            self.mode.memories.forget_step()
        self.asked(step)  # an earlier step may have raised before it called its closure
        is_idle = self.detached or self._plan.applied.muted
        if step.has_closure and not is_idle and not is_of_pytorch(step.optimizer):
            self._begin(step)

    def _begin(self, step: OptimizerStep) -> None:
        """An optimizer may move the weights, and call its closure then."""
        if not self._takes_closures:
            check_closure(self.mode, step.optimizer)
            self._takes_closures = True
        live = self.active(step.groups)
        with torch.no_grad():
            if self.mode.memories is not None:
                for target in live:
                    self.mode.memories.open(target)
            self._waits = self.mode.before_closure(live, step)

    def asked(self, step: OptimizerStep) -> None:
        if self._waits:
            self._waits = False
            with torch.no_grad():
                self.mode.at_closure()

    def ready(self, step: OptimizerStep) -> None:
        applied = self._plan.applied
        if self.detached or applied.muted or (self.mode.once and self._acted):
            return
        live = self.active(step.groups)
        check_weight_decay(live, step.optimizer, step.groups)
        self._acts_on(live, step)
        with torch.no_grad():
            self.mode.before(live, step)

    def _acts_on(self, live: Lives, step: OptimizerStep) -> None:
        self._acted, self._live = True, live
        if live:
            step.acted[self._plan.applied] = live

    def addition(self, step: OptimizerStep) -> Tensor | float:
        with torch.no_grad():
            live = self.active(step.groups)
            penalties: list[Tensor] = [t.regularizer(t.binding.read()) for t in live]
            return sum(penalties)

    def ends(self, step: OptimizerStep) -> None:
        if self.detached or self._plan.applied.muted:
            return
        if self._waits:  # the closure was not called: it stepped by these
            self._waits = False
            self._acts_on(self.active(step.groups), step)
        if not self._acted:
            warnings.warn(
                f"this step of {type(step.optimizer).__name__} never called its closure, so no "
                "penalty was applied in it.",
                NeverAppliedWarning,
                stacklevel=5,
            )
            if self.mode.memories is not None:
                self.mode.memories.forget_step()
        with torch.no_grad():
            self.mode.after(self._live if self._acted else self.active(step.groups), step)
        self._acted = False
        self.count.add(step)

    def broken_off(self, step: OptimizerStep) -> None:
        if self._acted and not self.detached:
            self._acted = False
            self.mode.broken_off(self._live, step)

    def forget_step(self) -> None:
        """Answer for no step that raised: what it did has been put back."""
        self._acted = False

    def active(self, groups: Mapping[int, Group]) -> Lives:
        """The targets that are trainable now, each checked to be what the optimizer steps.

        Strengths that follow a schedule are those of this step.
        """
        if self._plan.applied.muted:
            return Lives()
        targets = self._plan.all_targets
        if self._found is None or not self._found.still_holds(targets, groups):
            self._found = self._find(targets, groups)
        return self._found.at(self.count)

    def _find(self, targets: tuple[Target, ...], groups: Mapping[int, Group]) -> FoundTargets:
        mine = [target for target in targets if target.name in self._names]
        live, lost = [], []
        for target in mine:
            parameters = target.parameters
            held = [id(p) in groups for p in parameters if p.requires_grad]
            if held and all(held):
                live.append(Live(target.name, target.binding, target.regularizer, parameters))
                self._stepped.add(target.name)
            elif held and (any(held) or target.name in self._stepped):
                lost.append(target.name)
        if lost:
            raise ReplacedParameterError(lost)
        again = doubled(live)
        here = Lives(each for each in live if each.name not in again)
        return FoundTargets(targets, mine, here, groups)


def check_closure(mode: Mode, optimizer: Optimizer) -> None:
    """Raise a sentence if a mode cannot act beside the closure of an optimizer."""
    reason = mode.why_not_by_closure(optimizer)
    if reason is not None:
        raise ModeError(
            f"mode={mode.name!r} acts when {type(optimizer).__name__} has called its closure, and "
            f"{reason}",
            'call step() without a closure, or use mode="gradient"',
        )


_TRAINS = attrgetter("requires_grad")


class FoundTargets:
    """The targets of an optimizer as they were found, and whether they still are the same."""

    def __init__(
        self,
        targets: tuple[Target, ...],
        mine: Collection[Target],
        live: Lives,
        groups: Mapping[int, Group],
    ) -> None:
        self._targets, self._live, self._groups = targets, live, groups
        self._is_scheduled = any(each.regularizer.scheduled for each in live)
        self._parameters = [p for target in mine for p in target.parameters]
        self._train = list(map(_TRAINS, self._parameters))
        bindings = [t.binding for t in mine if isinstance(t.binding, Direct)]
        self._are_direct = len(bindings) == len(mine)
        self._held = [binding.module._parameters for binding in bindings]
        self._names = [binding.name for binding in bindings]

    def still_holds(self, targets: tuple[Target, ...], groups: Mapping[int, Group]) -> bool:
        """Whether each module has its parameter still, as trainable and in the optimizer as then.

        Where something else may stand behind a weight it is False: it is then looked for again.
        """
        return (
            targets is self._targets
            and groups is self._groups
            and self._are_direct
            and all(map(is_, map(dict.get, self._held, self._names), self._parameters))
            and list(map(_TRAINS, self._parameters)) == self._train
        )

    def at(self, count: Count) -> Lives:
        """The targets, strengths as they are after so many steps."""
        if not self._is_scheduled:
            return self._live
        steps = count.steps
        return Lives(
            each._replace(regularizer=each.regularizer.at(steps))
            if each.regularizer.scheduled
            else each
            for each in self._live
        )
