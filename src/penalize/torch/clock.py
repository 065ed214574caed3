"""The steps of optimizers: when one begins, when its gradients are ready, and when it ends.

This is the one place that knows what a step is. A subclass whose ``step`` calls its parent's runs
PyTorch's hooks twice; a closure computes the gradients within the step, perhaps often; an optimizer
may step another one within its own; one that raised never ended; a compiled step is seen by the
hooks on its own optimizer alone; and a fused optimizer under a GradScaler is always stepped, and
carries what its kernel has to divide by and whether it has to skip.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import local
from types import FrameType
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils.hooks import RemovableHandle

from penalize.torch.listener import Listener
from penalize.torch.model.targets import Live

Group = Mapping[str, Any]
"""One of an optimizer's param groups."""


class ParamGroups(dict[int, Group]):
    """The param group of each parameter of an optimizer, by the parameter's id."""

    def __init__(self, groups: Sequence[Group]) -> None:
        super().__init__()
        self._found = [(group, list(map(id, group["params"]))) for group in groups]
        for group, ids in self._found:
            self.update(dict.fromkeys(ids, group))

    def still_hold(self, groups: Sequence[Group]) -> bool:
        """Whether these are the same param groups, with the same parameters."""
        return len(groups) == len(self._found) and all(
            now is group and list(map(id, now["params"])) == ids
            for now, (group, ids) in zip(groups, self._found, strict=True)
        )

    def __reduce__(self) -> Any:
        return type(None), ()  # a copy of an optimizer has groups of its own


def sign_of(group: Group) -> float:
    """−1 where what is maximized is the loss, so that ``.grad`` has the other sign."""
    return -1.0 if group.get("maximize", False) else 1.0


_GROUPS = "_penalize_groups"
"""An attribute of the optimizer: its groups as they were found last."""


def groups_of(optimizer: Optimizer) -> ParamGroups:
    """The param group of each parameter, by the parameter's id.

    The same object, as long as there is nothing else to be said.
    """
    found: ParamGroups | None = vars(optimizer).get(_GROUPS)
    if found is None or not found.still_hold(optimizer.param_groups):
        found = vars(optimizer)[_GROUPS] = ParamGroups(optimizer.param_groups)
    return found


def stepped_by(optimizer: Optimizer) -> Optimizer:
    """The optimizer itself, or the one that ZeroRedundancyOptimizer shards."""
    shards = any(kind.__name__ == "ZeroRedundancyOptimizer" for kind in type(optimizer).__mro__)
    inner: Optimizer = optimizer.optim if shards else optimizer  # type: ignore[attr-defined]
    return inner


class OptimizerStep:
    """One step of one optimizer, from its beginning to its end."""

    def __init__(
        self, optimizer: Optimizer, around: OptimizerStep | None, frame: FrameType | None
    ) -> None:
        self.optimizer = optimizer
        self.has_closure = False
        """Whether a closure computes the gradients within it, perhaps often."""

        self.groups = groups_of(optimizer)
        """The param group of each parameter, by the parameter's id."""

        self.around = around
        """The step of another optimizer that this one is a part of."""

        self.within: set[int] = set()
        """The ids of the parameters that optimizers within it have stepped."""

        self.acted: dict[object, Sequence[Live]] = {}
        """Whatever has applied penalties in it, and to what."""

        # What a fused optimizer is told by a GradScaler. Both stay on the device: nothing waits.
        self.scale: Tensor | None = getattr(optimizer, "grad_scale", None)
        """What the ``.grad`` that is about to be read is multiplied by; None for 1."""

        self.found_inf: Tensor | None = getattr(optimizer, "found_inf", None)
        """Over 0 where the step is to be skipped; None where it is not."""

        self.added: list[tuple[Sequence[nn.Parameter], object]] = []
        """The parameters to whose gradients penalties were added in it, and by whom."""

        self.frame = frame
        """What called the hooks: while it is on the stack, the step is running."""

        self.calls = [frame]
        """The calls of ``step`` that it consists of: what called the hooks of each."""

    def __reduce__(self) -> Any:
        return type(None), ()  # a copy of an optimizer is in no step

    @property
    def depth(self) -> int:
        """How many calls of ``step`` it consists of now, less those that raised."""
        while self.calls and not _is_on_the_stack(self.calls[-1]):
            self.calls.pop()
        return len(self.calls)

    @property
    def chain(self) -> Iterator[OptimizerStep]:
        """This step, and those that it is a part of."""
        step: OptimizerStep | None = self
        while step is not None:
            yield step
            step = step.around

    def assign(self, parameter: Tensor, value: Tensor) -> None:
        """parameter ← value, unless the optimizer is to skip this step."""
        if self.found_inf is not None:
            value = torch.where(self.found_inf.to(parameter.device) > 0, parameter, value)
        parameter.copy_(value)


_STEP = "_penalize_step"
"""An attribute of the optimizer: the step that is running, or that raised."""

_everywhere: dict[object, Listener] = {}
"""The listeners that hear of the steps of all optimizers."""

_innermost = local()
"""Of each thread, the last step that began: weakly, for a step that raised has its optimizer; and
whether its steps are nobody's business."""


def running(optimizer: Optimizer) -> OptimizerStep | None:
    """The step of an optimizer that is running now, where the clock has heard of it."""
    step: OptimizerStep | None = vars(optimizer).get(_STEP)
    return step if step is not None and _is_on_the_stack(step.frame) else None


def listen_to_all(listener: Listener) -> Callable[[], None]:
    """Have a listener hear of every step of every optimizer; returns what ends that."""
    _start()
    key = object()
    _everywhere[key] = listener

    def end() -> None:
        _everywhere.pop(key, None)

    return end


@contextmanager
def unheard() -> Iterator[None]:
    """Within the block, no listener hears of steps that this thread takes."""
    before = getattr(_innermost, "is_unheard", False)
    _innermost.is_unheard = True
    try:
        yield
    finally:
        _innermost.is_unheard = before


def listen(optimizer: Optimizer, listener: Listener, kept: object = None) -> list[RemovableHandle]:
    """Have a listener hear of the steps of one optimizer, in the order of the hooks on it.

    Args:
        optimizer: whose hooks are registered; removing these ends it.
        listener: what hears of the steps.
        kept: something that is to live as long as the optimizer.
    """
    _start()
    hooks = _Hooks(listener, kept)
    # A compiled step runs its hooks as they are. (As decorators these would load the compiler with
    # the module, which takes seconds.)
    before = torch.compiler.disable(hooks.before)  # type: ignore[no-untyped-call]
    after = torch.compiler.disable(hooks.after)  # type: ignore[no-untyped-call]
    return [
        optimizer.register_step_pre_hook(before),
        optimizer.register_step_post_hook(after),
    ]


# --- the hooks --------------------------------------------------------------------------------


@functools.cache
def _start() -> None:
    register_optimizer_step_pre_hook(_before_every_step)
    register_optimizer_step_post_hook(_after_every_step)


def _before_every_step(optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
    if getattr(_innermost, "is_unheard", False):
        return None
    if torch.compiler.is_compiling():  # it cannot trace a look at the stack
        return torch.compiler.disable(_before_now)(optimizer, args, kwargs)  # type: ignore[no-untyped-call]
    return _before_now(optimizer, args, kwargs)


def _before_now(optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
    step = _begin(optimizer)
    if step.depth > 1:
        return None
    listeners = list(_everywhere.values())
    step.has_closure = callable(_closure_of(args, kwargs))
    for listener in listeners:
        listener.begins(step)
    return _when_ready(step, listeners, args, kwargs)


def _after_every_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    if getattr(_innermost, "is_unheard", False):
        return
    if torch.compiler.is_compiling():
        torch.compiler.disable(_after_now)(optimizer)  # type: ignore[no-untyped-call]
    else:
        _after_now(optimizer)


def _after_now(optimizer: Optimizer) -> None:
    _end(vars(optimizer).get(_STEP))


class _Hooks:
    """The hooks on one optimizer: before its step, and after it."""

    def __init__(self, listener: Listener, kept: object) -> None:
        self._listener = listener
        self._kept = kept
        self._step: OptimizerStep | None = None
        self._began = False
        """Whether nobody else has seen the step begin: it is compiled."""

    def before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        step = running(optimizer)
        self._began = self._began and step is self._step
        if step is None or self._began:
            step = _begin(optimizer)
            self._began = True
            if step.depth == 1:
                for each in list(_everywhere.values()):
                    each.begins(step)
                    each.ready(step)
        if step.depth > 1:
            return None
        if self._step is not None:
            if any(each is self._step for each in step.chain):
                return None  # an optimizer that shares these hooks with the one around it
            self._listener.broken_off(self._step)
        self._step = step
        self._listener.begins(step)
        return _when_ready(step, [self._listener], args, kwargs)

    def after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        step = self._step
        if step is None or step.optimizer is not optimizer:
            return
        if step.depth < 2:  # 0 where other hooks on it, that had begun it, have ended it
            self._step = None
            self._listener.ends(step)
        if self._began:
            self._began = step.depth > 1
            _end(step)


def _begin(optimizer: Optimizer) -> OptimizerStep:
    step = running(optimizer)
    if step is not None:
        if step.depth:
            step.calls.append(_caller())
        return step
    held: ref[OptimizerStep] | None = getattr(_innermost, "step", None)
    around = held() if held is not None else None
    while around is not None and not _is_on_the_stack(around.frame):
        around = around.around
    step = OptimizerStep(optimizer, around, _caller())
    vars(optimizer)[_STEP] = step
    _innermost.step = ref(step)
    return step


def _end(step: OptimizerStep | None) -> None:
    if step is None:
        return
    if step.depth > 1:
        step.calls.pop()
        return
    step.calls.clear()
    vars(step.optimizer).pop(_STEP, None)
    step.frame = None
    for listener in list(_everywhere.values()):
        listener.ends(step)
    around = step.around
    _innermost.step = None if around is None else ref(around)
    for outer in () if around is None else around.chain:
        outer.within.update(step.groups)
        outer.acted.update(step.acted)


def _when_ready(step: OptimizerStep, listeners: list[Listener], args: Any, kwargs: Any) -> Any:
    """Tell that the gradients are ready: now, or right after each run of the closure of ``step``.

    The hook runs before the closure, when gradients are stale or absent. A line search compares
    what the closure returns, so there the penalty must be in it; everywhere else the loss that the
    user returned is passed on as it is.
    """
    closure = _closure_of(args, kwargs)
    if not callable(closure):
        step.groups = groups_of(step.optimizer)  # as hooks may have left them
        for listener in listeners:
            listener.ready(step)
        return None

    def with_listeners() -> Any:
        for listener in listeners:
            listener.asked(step)
        loss = closure()
        step.groups = groups_of(step.optimizer)  # as the closure may have left them
        for listener in listeners:
            listener.ready(step)
        if isinstance(step.optimizer, LBFGS):
            loss = loss + sum(listener.addition(step) for listener in listeners)
        return loss

    if "closure" in kwargs:
        return args, {**kwargs, "closure": with_listeners}
    return (args[0], with_listeners, *args[2:]), kwargs


def _closure_of(args: Any, kwargs: Any) -> Any:
    # args holds the optimizer itself first.
    return kwargs.get("closure", args[1] if len(args) > 1 else None)


# --- the stack --------------------------------------------------------------------------------


def _is_on_the_stack(wanted: FrameType | None) -> bool:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame is not wanted:
        frame = frame.f_back
    return frame is not None


def _caller() -> FrameType | None:
    """The frame that called the hook, beneath the ones that keep the compiler out of it."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith(
        ("torch._dynamo", __name__)
    ):
        frame = frame.f_back
    return frame
