"""The two hooks that an attachment has on one optimizer: when, in a step, a mode acts."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import LBFGS, Optimizer

from penalize.errors import NeverAppliedWarning, ReplacedParameterError
from penalize.regularizers.base import Regularizer
from penalize.torch.model.bindings import Plain, trainable
from penalize.torch.acting.checks import check_weight_decay, groups_of
from penalize.torch.modes.modes import Group, Live, Mode, Target


class Owner(Protocol):
    """What the hooks belong to."""

    muted: bool
    """Whether it lets steps pass, while an audit looks at them without the penalty."""

    acts: int
    """How often it has acted."""

    @property
    def alive(self) -> bool:
        """Whether it still acts."""

    def guard(self, optimizer: Optimizer, held: Mapping[int, Group]) -> None:
        """Raise or warn where the step is not what was attached to."""


class Stepper:
    """Acts once in each step of one optimizer."""

    def __init__(self, owner: Owner, targets: Sequence[Target], mode: Mode) -> None:
        # The optimizer keeps its hooks, and by them the attachment and its claims, alive.
        self.owner = owner
        self._targets = targets
        self._mode = mode
        self._acted = False
        self._stepped = {t.name for t in targets if trainable(t.binding)}
        self._nesting = Nesting()
        self._found: Found | None = None
        self._active: list[Live] = []
        self.steps = 0
        """How many steps there were: what schedules are functions of."""

    @property
    def is_running(self) -> bool:
        """Whether its optimizer is in the middle of a step."""
        return self._nesting.is_running

    def adopt(self, regularizers: Mapping[str, Regularizer]) -> None:
        """Take other regularizers for parameters of these names."""
        self._targets = [
            replace(t, regularizer=regularizers.get(t.name, t.regularizer)) for t in self._targets
        ]
        self._found = None

    def before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The hook before ``step``: acts, or wraps the closure so that it acts."""
        if self.owner.muted:
            return None
        if not self._nesting.enter():
            return None
        self._acted = False
        return when_gradients_are_ready(optimizer, args, kwargs, self._act_before, self._penalty)

    def after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """The hook after ``step``."""
        if self.owner.muted:
            return
        if not self._nesting.leave():
            return
        if not self.owner.alive:  # detached within the step
            return
        if not self._acted:
            warnings.warn(
                f"this step of {type(optimizer).__name__} never called its closure, so no penalty "
                "was applied in it.",
                NeverAppliedWarning,
                stacklevel=2,
            )
        groups = groups_of(optimizer)
        with torch.no_grad():
            active = self._active if self._acted else self.active(groups)
            self._mode.after(active, groups, optimizer)
        self.steps += 1

    def _act_before(self, optimizer: Optimizer) -> None:
        if not self.owner.alive or (self._mode.once and self._acted):
            return
        self._acted = True
        self.owner.acts += 1
        groups = groups_of(optimizer)
        self.owner.guard(optimizer, groups)
        active = self._active = self.active(groups)
        check_weight_decay(active, optimizer, groups)
        with torch.no_grad():
            self._mode.before(active, groups, optimizer)

    def active(self, groups: Mapping[int, Group]) -> list[Live]:
        """The targets that are trainable now, each checked to be what the optimizer steps.

        Strengths that follow a schedule are those of this step.
        """
        if self.owner.muted:
            return []
        if self._found is None or not self._found.still_holds(groups):
            self._found = self._find(groups)
        return self._found.at(self.steps)

    def _find(self, groups: Mapping[int, Group]) -> Found:
        active, lost = [], []
        for target in self._targets:
            parameters = target.parameters
            held = [id(p) in groups for p in parameters if p.requires_grad]
            if held and all(held):
                active.append(Live(target.name, target.binding, target.regularizer, parameters))
                self._stepped.add(target.name)
            elif held and (any(held) or target.name in self._stepped):
                lost.append(target.name)
        if lost:
            raise ReplacedParameterError(lost)
        return Found(self._targets, active, groups)

    def _penalty(self, optimizer: Optimizer) -> Tensor | float:
        """Σ Ω(w), for an optimizer that compares the values of its closure."""
        with torch.no_grad():
            active = self.active(groups_of(optimizer))
            penalties: list[Tensor] = [t.regularizer(t.binding.read()) for t in active]
            return sum(penalties)


class Found:
    """The targets of an optimizer as they were found, and whether they still are the same."""

    def __init__(
        self, targets: Sequence[Target], live: list[Live], groups: Mapping[int, Group]
    ) -> None:
        self._live = live
        self._is_scheduled = any(each.regularizer.scheduled for each in live)
        self._places: list[tuple[Mapping[str, Any], str, Tensor, bool, bool]] | None = None
        if all(isinstance(target.binding, Plain) for target in targets):
            self._places = [
                (t.binding.module._parameters, t.binding.name, p, p.requires_grad, id(p) in groups)
                for t in targets
                for p in t.parameters
            ]

    def still_holds(self, groups: Mapping[int, Group]) -> bool:
        """Whether each module has its parameter still, as trainable and in the optimizer as then.

        Where something else may stand behind a weight it is False: it is then looked for again.
        """
        return self._places is not None and all(
            held.get(name) is p and p.requires_grad is trains and (id(p) in groups) is stepped
            for held, name, p, trains, stepped in self._places
        )

    def at(self, step: int) -> list[Live]:
        """The targets, strengths as they are at a step."""
        if not self._is_scheduled:
            return self._live
        return [each._replace(regularizer=each.regularizer.at(step)) for each in self._live]


class Nesting:
    """Tells the step that the user called from those within it.

    A subclass whose step() calls super().step() fires hooks once for each of the two. A step that
    raised leaves its depth behind; that it is over is seen by its frame, which is no longer on the
    stack.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._outermost: FrameType | None = None

    @property
    def is_running(self) -> bool:
        """Whether a step is under way."""
        return bool(self._depth) and _is_running(self._outermost)

    def enter(self) -> bool:
        """A step begins; called by a hook before it. Whether it is the outermost one."""
        if self.is_running:
            self._depth += 1
            return False
        self._depth, self._outermost = 1, _caller()
        return True

    def leave(self) -> bool:
        """A step ends. Whether it is the outermost one."""
        self._depth = max(self._depth - 1, 0)
        if self._depth:
            return False
        self._outermost = None
        return True


def _caller() -> FrameType | None:
    """The frame that called the hook, beneath the ones that keep the compiler out of it."""
    frame: FrameType | None = sys._getframe(3)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("torch._dynamo"):
        frame = frame.f_back
    return frame


def _is_running(wanted: FrameType | None) -> bool:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame is not wanted:
        frame = frame.f_back
    return frame is not None


def when_gradients_are_ready(
    optimizer: Optimizer,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    act: Callable[[Optimizer], None],
    penalty: Callable[[Optimizer], Any] | None = None,
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Act now, or, if ``step`` got a closure, each time right after the closure ran.

    The hook runs before the closure, when gradients are stale or absent. A line search compares
    what the closure returns, so there the penalty must be in it; everywhere else the loss that the
    user returned is passed on as it is.
    """
    # args holds the optimizer itself first.
    closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
    if not callable(closure):
        act(optimizer)
        return None

    def with_penalty() -> Any:
        loss = closure()
        act(optimizer)
        if penalty is not None and isinstance(optimizer, LBFGS):
            loss = loss + penalty(optimizer)
        return loss

    if "closure" in kwargs:
        return args, {**kwargs, "closure": with_penalty}
    return (args[0], with_penalty, *args[2:]), kwargs
