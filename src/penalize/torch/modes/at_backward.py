"""``clip="with"``: the gradient of the penalty early enough to be clipped with that of the data.

A loop clips between ``backward()`` and ``step()``. So the gradient is added at the end of the first
backward pass of a step, and not again in the passes that accumulate on it. Nothing tells when a
loop clears its gradients; that it did is seen when the next pass begins, and ``.grad`` is None.
What cannot be told apart, such as gradients that are zeroed in place, is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from penalize.errors import OptimizerError
from penalize.torch.clock import OptimizerStep, groups_of
from penalize.torch.model.targets import Live, Target
from penalize.torch.modes.base import Active
from penalize.torch.modes.gradient import (
    Gradient,
    check_dense,
    check_without_graph,
    gradients_there,
    is_stepped,
    version_of,
)
from penalize.torch.stack import is_stepped_by_a_scaler

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
        """Hooks on all parameters, since a penalty may be on one that a pass does not reach."""
        stepped = [p for group in optimizer.param_groups for p in group["params"]]
        penalized = [p for target in targets for p in target.binding.parameters()]
        begins = partial(_begins, ref(self), ref(active), ref(optimizer))
        hooks = []
        for parameter in dict.fromkeys([*stepped, *penalized]):
            with _requiring_gradient(parameter):
                # The first is called before a pass accumulates into .grad. fully_shard calls none
                # but the second.
                hooks.append(parameter.register_hook(lambda _: begins()))
                hooks.append(parameter.register_post_accumulate_grad_hook(begins))
        return hooks

    def begin(self, active: Active, optimizer: Optimizer, accumulated: Tensor | None) -> None:
        """A backward pass reaches one of the parameters, perhaps as the first."""
        this_pass = torch._C._current_graph_task_id()
        if this_pass == self._pass or self._is_adding:
            return
        self._pass = this_pass
        if not self._is_open:  # a reentrant checkpoint begins a pass within a pass
            self._look_at_what_is_there(active.active(groups_of(optimizer)), accumulated)
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
            targets = active.active(groups)
            check_dense(targets, gradients_there(targets))
            self._is_adding = True
            try:
                new = [target for target in targets if target.name not in self._held]
                self.add(new, groups, self._scale_on(optimizer))
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

    def pending(self) -> Any:
        return dict(self._held)

    def wait_for(self, pending: Any) -> None:
        self._held = dict(pending)

    # --- the step ---------------------------------------------------------------------------

    def before_closure(self, targets: Sequence[Live], step: OptimizerStep) -> bool:
        return False  # it is in the gradients of before the step, since their backward pass

    def before(self, targets: Sequence[Live], step: OptimizerStep) -> None:
        """What no backward pass has reached is added now."""
        self._check_scaler(step)
        check_without_graph(targets, gradients_there(targets))
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
        super().before(missing, step)

    def after(self, targets: Sequence[Live], step: OptimizerStep) -> None:
        self._held.clear()
        super().after(targets, step)

    def _check_scaler(self, step: OptimizerStep) -> None:
        """In the backward pass gradients are scaled, and only the scaler knows by how much."""
        expected = self._scaler is not None and self._scaler.is_enabled()
        found = is_stepped_by_a_scaler(step)
        optimizer = step.optimizer
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


def _begins(
    mode: ref[AtBackward],
    active: ref[Active],
    held_by: ref[Optimizer],
    accumulated: Tensor | None = None,
) -> None:
    """Pass it on, where all are alive: parameters hold this hook, and may outlive them."""
    held, knows, optimizer = mode(), active(), held_by()
    if held is not None and knows is not None and optimizer is not None:
        held.begin(knows, optimizer, accumulated)


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
