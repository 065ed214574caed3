"""``clip="with"``: the gradient of the penalty early enough to be clipped with that of the data.

A loop clips between ``backward()`` and ``step()``. So the gradient is added at the end of the first
backward pass of a step, and not again in the passes that accumulate on it. Nothing tells when a
loop clears its gradients; that it did is seen when the next pass begins, and ``.grad`` is None.
What cannot be told apart, such as gradients that are zeroed in place, is refused.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from penalize.errors import ModeError, OptimizerError
from penalize.torch.acting.checks import groups_of
from penalize.torch.modes.modes import (
    Active,
    Gradient,
    Group,
    Live,
    Mode,
    Target,
    check_dense,
    is_stepped,
    mode_named,
    version_of,
)

_HELD = "_penalize_held"
"""On a gradient: its version at the end of the last backward pass, with the penalty in it."""

Held = list[tuple[nn.Parameter, Tensor]]
"""The parameters behind one weight, each with the gradient that the penalty is in."""


class AtBackward(Gradient):
    """``mode="gradient"``, acting at the end of a backward pass where there was one."""

    clip = "with"

    def __init__(self, scaler: GradScaler | None) -> None:
        super().__init__()
        self._scaler = scaler
        self._held: dict[str, Held] = {}
        """By the name of the weight."""

        self._pass = -1
        self._is_open = False
        """Whether a pass has begun and not come to its end; it may have failed."""

        self._is_adding = False
        """Whether penalties are added now, which may be a pass of their own."""

    # --- the hooks --------------------------------------------------------------------------

    def listen(
        self, targets: Sequence[Target], optimizer: Optimizer, active: Active
    ) -> list[RemovableHandle]:
        """Hooks on all parameters, since a penalty may be on one that a pass does not reach.

        They do not keep the optimizer alive.
        """
        stepped = [p for group in optimizer.param_groups for p in group["params"]]
        penalized = [p for target in targets for p in target.binding.parameters()]
        begins = partial(self._begins, active, ref(optimizer))
        hooks = []
        for parameter in dict.fromkeys([*stepped, *penalized]):
            with _requiring_gradient(parameter):
                # The first is called before a pass accumulates into .grad. fully_shard calls none
                # but the second.
                hooks.append(parameter.register_hook(lambda _: begins()))
                hooks.append(parameter.register_post_accumulate_grad_hook(begins))
        return hooks

    def _begins(
        self, active: Active, held_by: ref[Optimizer], accumulated: Tensor | None = None
    ) -> None:
        """A backward pass reaches one of the parameters, perhaps as the first."""
        optimizer, this_pass = held_by(), torch._C._current_graph_task_id()
        if optimizer is None or this_pass == self._pass or self._is_adding:
            return
        self._pass = this_pass
        if not self._is_open:  # a reentrant checkpoint begins a pass within a pass
            self._look_at_what_is_there(active(groups_of(optimizer)), accumulated)
        self._is_open = True
        # DDP and FSDP end a backward pass by callbacks of their own, which come first.
        _at_the_end(partial(_at_the_end, partial(self._ended, active, optimizer)))

    def _look_at_what_is_there(self, targets: Sequence[Live], accumulated: Tensor | None) -> None:
        """Between the passes of one step nothing but accumulation may change a gradient."""
        for target in targets:
            held = {id(p): gradient for p, gradient in self._held.get(target.name, [])}
            for p in target.parameters:
                if p.grad is None or is_stepped(p.grad):
                    # Cleared, or about to be: a generator's pass goes through its discriminator.
                    self._held.pop(target.name, None)
                elif p is accumulated and p.grad is not held.get(id(p)):
                    self._held.pop(target.name, None)
                elif not _is_continued(p.grad, held.get(id(p)), by=p is accumulated):
                    raise OptimizerError(
                        f"when a backward pass began, the gradient of {target.name!r} was neither "
                        "cleared nor as the last pass of this step had left it, so with "
                        'clip="with" it is not known whether the penalty is in it',
                        "clear gradients by zero_grad(set_to_none=True), the default, before the "
                        "first pass of a step, and clip after the last",
                    )

    def _ended(self, active: Active, optimizer: Optimizer) -> None:
        self._is_open = False
        groups = groups_of(optimizer)
        with torch.no_grad():
            targets = active(groups)
            check_dense(targets)
            self._is_adding = True
            try:
                new = [target for target in targets if target.name not in self._held]
                self._add(new, groups, self._scale_on(optimizer))
            finally:
                self._is_adding = False
            for target in targets:
                parameters = target.parameters
                held = [(p, p.grad) for p in parameters if p.grad is not None]
                self._held[target.name] = held
                for _, gradient in held:
                    setattr(gradient, _HELD, version_of(gradient))

    def _scale_on(self, optimizer: Optimizer) -> Tensor | None:
        if self._scaler is None:
            return None
        first = optimizer.param_groups[0]["params"][0]
        return self._scaler.scale(torch.ones((), device=first.device))

    # --- the step ---------------------------------------------------------------------------

    def before(
        self, targets: Sequence[Live], groups: Mapping[int, Group], optimizer: Optimizer
    ) -> None:
        """What no backward pass has reached is added now."""
        self._check_scaler(optimizer)
        missing = []
        for target in targets:
            held = {id(p): gradient for p, gradient in self._held.get(target.name, [])}
            parameters = target.parameters
            if all(p.grad is None for p in parameters):
                missing.append(target)
            elif any(p.grad is not None and p.grad is not held.get(id(p)) for p in parameters):
                raise OptimizerError(
                    f"the gradient of {target.name!r} is not the one that a backward pass left, so "
                    'with clip="with" it is not known whether the penalty is in it',
                    "get gradients by backward(), once for each step, and change them in place, as "
                    "torch.nn.utils.clip_grad_norm_ does",
                )
        super().before(missing, groups, optimizer)

    def after(
        self, targets: Sequence[Live], groups: Mapping[int, Group], optimizer: Optimizer
    ) -> None:
        self._held.clear()
        super().after(targets, groups, optimizer)

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


def _is_continued(gradient: Tensor, held: Tensor | None, *, by: bool) -> bool:
    """Whether a gradient is what the last pass left, by one accumulation perhaps."""
    if held is None:
        return False
    if gradient is not held:
        return gradient._is_view()  # DDP has moved it into a bucket
    return version_of(gradient) - getattr(held, _HELD) in ((0, 1) if by else (0,))


@contextmanager
def _requiring_gradient(parameter: nn.Parameter) -> Iterator[None]:
    """Hooks can only be registered on what requires a gradient; they stay if it is frozen."""
    frozen = not parameter.requires_grad
    if frozen:
        parameter.requires_grad_(True)
    try:
        yield
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


def mode_of(
    name: object, clip: object, scaler: GradScaler | None, values: object = False
) -> Callable[[], Mode]:
    """What makes the mode for each optimizer.

    Raises:
        ModeError: there is no such mode, no such word, the two do not go together, or the scaler is
            none.
    """
    chosen = mode_named(name)
    if not isinstance(scaler, GradScaler | None):
        raise ModeError(f"scaler={scaler!r}", "expected the torch.amp.GradScaler of the loop")
    if clip not in ("without", "with"):
        raise ModeError(f"clip={clip!r}", 'expected "without" or "with"')
    if values not in (False, True):
        raise ModeError(f"values={values!r}", "expected True or False")
    if values and (chosen.name == "proximal" or clip == "with"):
        found = 'mode="proximal"' if chosen.name == "proximal" else 'clip="with"'
        raise ModeError(
            f"the option values=True computes the penalty with its gradient, and {found} computes "
            "that at another time, or not at all",
            "leave values out, and call plan.breakdown() where you log",
        )
    if clip == "without":
        return partial(chosen, values=bool(values))
    if chosen.name != "gradient":
        raise ModeError(
            f'clip="with" clips gradients, and mode={chosen.name!r} adds none',
            'use mode="gradient"',
        )
    return partial(AtBackward, scaler)
