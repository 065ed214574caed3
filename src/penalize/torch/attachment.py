"""An attached plan: hooks on the optimizer that apply each penalty exactly once per step."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any
from weakref import ref

import torch
from torch.optim import LBFGS, Optimizer
from torch.utils.hooks import RemovableHandle

from penalize.errors import ReplacedParameterError
from penalize.torch import ledger
from penalize.torch.bindings import trainable
from penalize.torch.checks import (
    check_can_act,
    check_not_scaled,
    check_weight_decay,
    claims_of,
    groups_of,
    share_out,
)
from penalize.torch.modes import Group, Mode, Target


class Attachment:
    """What ``plan.attach`` returns. Lives as long as the optimizer; :meth:`detach` ends it.

    It refers to its optimizers weakly, so that dropping an optimizer drops its attachment.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        optimizers: Sequence[Optimizer],
        mode: Mode,
        *,
        place: str,
        guard: Callable[[], None],
        on_detach: Callable[[], None],
    ) -> None:
        """Check everything, then attach. See ``Plan.attach``; raises what that documents."""
        self._mode = mode
        self._place = place
        self._on_detach = on_detach
        self._optimizers = [ref(optimizer) for optimizer in optimizers]
        self._hooks: list[RemovableHandle] = []
        self.muted = False
        """Whether it lets steps pass, while an audit looks at them without the penalty."""

        self._kind = " and ".join(type(optimizer).__name__ for optimizer in optimizers)

        shares = share_out(targets, optimizers)
        for optimizer, share in zip(optimizers, shares, strict=True):
            check_can_act(optimizer)
            active = [target for target in share if trainable(target.binding)]
            check_weight_decay(active, optimizer, groups_of(optimizer))
            for target in share:
                mode.check(target, optimizer)
        self._claims = claims_of(targets)
        ledger.check_free(self._claims, str(self), "Call detach() on the first one")

        for optimizer, share in zip(optimizers, shares, strict=True):
            stepper = _Stepper(share, mode, guard)
            # A compiled step runs its hooks as they are. (As decorators these would load the
            # compiler with the module, which takes seconds.)
            before = torch.compiler.disable(stepper.before)  # type: ignore[no-untyped-call]
            after = torch.compiler.disable(stepper.after)  # type: ignore[no-untyped-call]
            self._hooks.append(optimizer.register_step_pre_hook(before))
            self._hooks.append(optimizer.register_step_post_hook(after))
            # The optimizer keeps the attachment, and with it the claims, alive.
            stepper.attachment = self
        ledger.claim(self._claims, self)

    @property
    def mode(self) -> str:
        """``"gradient"``, ``"decoupled"`` or ``"proximal"``."""
        return self._mode.name

    @property
    def alive(self) -> bool:
        """Whether it still acts: not detached, and an optimizer of it exists."""
        return bool(self._hooks) and any(optimizer() is not None for optimizer in self._optimizers)

    def detach(self) -> None:
        """Stop acting. The weights and the optimizer's state stay as they are."""
        if self.alive:  # otherwise the claims are void, and may be another attachment's by now
            ledger.release(self._claims)
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._on_detach()

    def holds(self, optimizer: Optimizer) -> bool:
        """Whether this is one of its optimizers."""
        return any(held() is optimizer for held in self._optimizers)

    def __str__(self) -> str:
        return f"the attachment to {self._kind} in mode {self.mode!r} ({self._place})"

    def __repr__(self) -> str:
        state = "" if self.alive else ", detached"
        return f"<Attachment: {self._kind}, mode={self.mode!r}{state}>"


class _Stepper:
    """The two hooks on one optimizer."""

    def __init__(self, targets: Sequence[Target], mode: Mode, guard: Callable[[], None]) -> None:
        self.attachment: Attachment | None = None
        self._targets = targets
        self._mode = mode
        self._guard = guard
        self._acted = False
        self._stepped = {t.name for t in targets if trainable(t.binding)}
        self._depth = 0
        self._outermost: FrameType | None = None

    # A subclass whose step() calls super().step() fires the hooks once for each of the two. Only
    # the outermost step counts. A step that raised leaves its depth behind; that it is over is seen
    # by its frame, which is no longer on the stack.

    def before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The hook before ``step``: acts, or wraps the closure so that it acts."""
        if self.attachment is not None and self.attachment.muted:
            return None
        if self._depth and _is_running(self._outermost):
            self._depth += 1
            return None
        self._depth, self._outermost = 1, _caller()
        self._acted = False
        return _when_gradients_are_ready(optimizer, args, kwargs, self._act_before, self._penalty)

    def after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """The hook after ``step``."""
        if self.attachment is not None and self.attachment.muted:
            return
        self._depth -= 1
        if self._depth:
            return
        self._outermost = None
        groups = groups_of(optimizer)
        with torch.no_grad():
            self._mode.after(self._active(groups), groups, optimizer)

    def _act_before(self, optimizer: Optimizer) -> None:
        if self._mode.once and self._acted:
            return
        self._acted = True
        self._guard()
        check_not_scaled(optimizer)
        groups = groups_of(optimizer)
        active = self._active(groups)
        check_weight_decay(active, optimizer, groups)
        with torch.no_grad():
            self._mode.before(active, groups)

    def _active(self, groups: Mapping[int, Group]) -> list[Target]:
        """The targets that are trainable now, each checked to be what the optimizer steps."""
        active, lost = [], []
        for target in self._targets:
            held = [id(p) in groups for p in target.binding.parameters() if p.requires_grad]
            if held and all(held):
                active.append(target)
                self._stepped.add(target.name)
            elif held and (any(held) or target.name in self._stepped):
                lost.append(target.name)
        if lost:
            raise ReplacedParameterError(lost)
        return active

    def _penalty(self, optimizer: Optimizer) -> torch.Tensor | float:
        """Σ Ω(w), for an optimizer that compares the values of its closure."""
        with torch.no_grad():
            active = self._active(groups_of(optimizer))
            penalties: list[torch.Tensor] = [t.regularizer(t.binding.read()) for t in active]
            return sum(penalties)


def _caller() -> FrameType | None:
    """The frame that called the hook, beneath the ones that keep the compiler out of it."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("torch._dynamo"):
        frame = frame.f_back
    return frame


def _is_running(wanted: FrameType | None) -> bool:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame is not wanted:
        frame = frame.f_back
    return frame is not None


def _when_gradients_are_ready(
    optimizer: Optimizer,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    act: Callable[[Optimizer], None],
    penalty: Callable[[Optimizer], Any],
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Act now, or, if ``step`` got a closure, each time right after the closure ran.

    The hook runs before the closure, when gradients are stale or absent. A line search compares
    what the closure returns, so there the penalty must be in it; everywhere else the loss that the
    user returned is passed on as it is.
    """
    # args holds the optimizer itself first.
    closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
    if closure is None:
        act(optimizer)
        return None

    def with_penalty() -> Any:
        loss = closure()
        act(optimizer)
        return loss + penalty(optimizer) if isinstance(optimizer, LBFGS) else loss

    if "closure" in kwargs:
        return args, {**kwargs, "closure": with_penalty}
    return (args[0], with_penalty, *args[2:]), kwargs
