"""``clip="with"``: the gradient of the penalty early enough to be clipped with that of the data.

A loop clips between ``backward()`` and ``step()``. So the gradient is added at the end of the first
backward pass of a step, and not again in the passes that accumulate on it. Nothing tells when a
loop clears its gradients; that it did is seen by ``.grad`` being another tensor. What cannot be
told apart, such as gradients that are zeroed in place, is refused.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import FrameType
from typing import Any, NamedTuple
from weakref import ref

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from penalize.errors import ModeError, OptimizerError
from penalize.torch.checks import groups_of
from penalize.torch.modes import (
    Active,
    Gradient,
    Group,
    Mode,
    Target,
    add_gradient,
    check_dense,
    mode_named,
)


class _Held(NamedTuple):
    """A gradient that a penalty's was added to, and how often it had been changed by then."""

    parameter: nn.Parameter
    gradient: Tensor
    version: int


class AtBackward(Gradient):
    """``mode="gradient"``, acting at the end of a backward pass where there was one."""

    clip = "with"

    def __init__(self, scaler: GradScaler | None) -> None:
        self._scaler = scaler
        self._held: dict[str, list[_Held]] = {}
        self._pass = -1
        self._continued: set[int] = set()
        """The parameters whose gradient this pass has accumulated on what was held."""

    def listen(
        self, targets: Sequence[Target], optimizer: Optimizer, active: Active
    ) -> list[RemovableHandle]:
        """Hooks on the parameters; they do not keep the optimizer alive."""
        accumulated = partial(self._accumulated, active, ref(optimizer))
        return [_hooked(p, accumulated) for target in targets for p in target.binding.parameters()]

    def _accumulated(
        self, active: Active, held_by: ref[Optimizer], parameter: nn.Parameter
    ) -> None:
        """A backward pass has just accumulated into ``.grad``."""
        optimizer = held_by()
        if optimizer is None:
            return
        this_pass = torch._C._current_graph_task_id()
        if this_pass != self._pass:
            self._pass = this_pass
            self._continued.clear()
            # DDP and FSDP end a backward pass by callbacks of their own, which come first.
            ended = partial(self._ended, active, optimizer)
            _at_the_end(partial(_at_the_end, ended))
        self._check_untouched(parameter)

    def _check_untouched(self, parameter: nn.Parameter) -> None:
        """Between the passes of one step nothing but accumulation may change a gradient."""
        for name, held in self._held.items():
            for i, (p, gradient, version) in enumerate(held):
                if p is not parameter or p.grad is None:
                    continue
                # DDP may have moved it into a bucket, of which it is a view then. A view counts the
                # changes of the whole bucket; what begins anew is none.
                moved = p.grad._is_view()
                goes_on = moved or p.grad is gradient
                if goes_on:
                    held[i] = _Held(p, p.grad, version + 1)
                    self._continued.add(id(p))
                if not moved and _version(p.grad) != (version + 1 if goes_on else 0):
                    raise OptimizerError(
                        f"between two backward passes of one step the gradient of {name!r} was "
                        'changed, so with clip="with" it is not known whether the penalty is '
                        "still in it",
                        "clear gradients by zero_grad(set_to_none=True), the default, and clip "
                        "after the last pass",
                    )

    def _ended(self, active: Active, optimizer: Optimizer) -> None:
        groups = groups_of(optimizer)
        with torch.no_grad():
            targets = active(groups)
            check_dense(targets)
            for target in targets:
                if not self._is_in(target, ending=True):
                    add_gradient(target, groups, self._scaled)
            for target in targets:
                self._held[target.name] = [
                    _Held(p, p.grad, _version(p.grad))
                    for p in target.binding.parameters()
                    if p.grad is not None
                ]

    def _is_in(self, target: Target, *, ending: bool = False) -> bool:
        held = self._held.get(target.name, [])
        # DDP may put a view of its buckets in place of what was accumulated.
        return bool(held) and all(
            p.grad is gradient or (ending and id(p) in self._continued) for p, gradient, _ in held
        )

    def _scaled(self, gradient: Tensor) -> Tensor:
        if self._scaler is None:
            return gradient
        return gradient * self._scaler.scale(torch.ones((), device=gradient.device))

    def before(
        self, targets: Sequence[Target], groups: Mapping[int, Group], optimizer: Optimizer
    ) -> None:
        """What no backward pass has seen is added now."""
        self._check_scaler(optimizer)
        for target in targets:
            held = self._held.get(target.name, [])
            if any(p.grad is not None and p.grad is not gradient for p, gradient, _ in held):
                raise OptimizerError(
                    f"the gradient of {target.name!r} was replaced after the backward pass, so "
                    'with clip="with" it is not known whether the penalty is still in it',
                    "change gradients in place, as torch.nn.utils.clip_grad_norm_ does",
                )
        super().before([t for t in targets if not self._is_in(t)], groups, optimizer)

    def after(
        self, targets: Sequence[Target], groups: Mapping[int, Group], optimizer: Optimizer
    ) -> None:
        for target in targets:
            self._held.pop(target.name, None)

    def _check_scaler(self, optimizer: Optimizer) -> None:
        """In the backward pass gradients are scaled, and only the scaler knows by how much."""
        expected = self._scaler is not None and self._scaler.is_enabled()
        found = getattr(optimizer, "found_inf", None) is not None or _in_scaler_step()
        if found and not expected:
            raise OptimizerError(
                f'{type(optimizer).__name__} is stepped by a GradScaler, and clip="with" does not '
                "know it",
                'write attach(optimizer, clip="with", scaler=scaler)',
            )
        if expected and not found:
            raise OptimizerError(
                f'attach(..., clip="with", scaler=...) was told of a GradScaler, and '
                f"{type(optimizer).__name__} is stepped without it",
                "step by scaler.step(optimizer), or attach without scaler=",
            )


def _version(gradient: Tensor) -> int:
    """How often a gradient was changed in place; for a sharded one, its shard."""
    return int(getattr(gradient, "_local_tensor", gradient)._version)


def _hooked(parameter: nn.Parameter, hook: Any) -> RemovableHandle:
    frozen = not parameter.requires_grad
    if frozen:  # a hook can only be registered on what requires a gradient; it stays
        parameter.requires_grad_(True)
    try:
        register: Callable[[Any], RemovableHandle] = parameter.register_post_accumulate_grad_hook
        return register(hook)
    finally:
        if frozen:
            parameter.requires_grad_(False)


def _at_the_end(callback: Any) -> None:
    """Have it called at the end of the running backward pass."""
    torch.autograd.Variable._execution_engine.queue_callback(callback)


_SCALER_CODE = {GradScaler.step.__code__, GradScaler._maybe_opt_step.__code__}


def _in_scaler_step() -> bool:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code in _SCALER_CODE:
            return bool(frame.f_locals["self"].is_enabled())
        frame = frame.f_back
    return False


def mode_of(name: object, clip: object, scaler: GradScaler | None) -> Callable[[], Mode]:
    """What makes the mode for each optimizer.

    Raises:
        ModeError: there is no such mode, no such word, or the two do not go together.
    """
    chosen = mode_named(name)
    if clip not in ("without", "with"):
        raise ModeError(f"clip={clip!r}", 'expected "without" or "with"')
    if clip == "without":
        return lambda: chosen
    if chosen.name != "gradient":
        raise ModeError(
            f'clip="with" clips gradients, and mode={chosen.name!r} adds none',
            'use mode="gradient"',
        )
    return partial(AtBackward, scaler)
