"""Watching a training loop: what reached each parameter in each step of each optimizer.

Nothing that the loop computes is changed. Backward passes are seen by a patch of
``torch.autograd``, which ``Tensor.backward`` goes through; steps by the clock.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from penalize.torch.auditing.loss_terms import DECLARED, SCALED, Pass, Trace, note
from penalize.torch.auditing.models_alive import shares_groups, stepped_by
from penalize.torch.clock import OptimizerStep, listen_to_all
from penalize.torch.listener import Listener
from penalize.torch.plan import Plan


@dataclass
class Received:
    """What one parameter received."""

    parameter: Tensor
    optimizers: dict[Optimizer, dict[str, Any]] = field(default_factory=dict)
    """The optimizers that stepped it, each with the param group as it was then."""

    got_gradient: bool = False
    """Whether a backward pass gave it one."""

    was_stepped: bool = False
    """Whether it had a gradient in a step."""

    was_trainable: bool | None = None
    """Whether it was trainable in its last step: a critic is not in its generator's."""

    passes: list[Pass] = field(default_factory=list)
    """The backward passes that made the gradient of its last step."""

    pending: list[Pass] = field(default_factory=list)
    """The backward passes since its gradient was last cleared."""

    size: float = math.nan
    """The norm of its gradient, as the last of these left it."""

    rescaled: float = 1.0
    """What its gradient was multiplied by between the passes and its last step."""

    @property
    def is_trainable(self) -> bool:
        """Whether it is trained; in its last step, where there was one."""
        return self.parameter.requires_grad if self.was_trainable is None else self.was_trainable

    @property
    def last(self) -> list[Pass]:
        """The passes of its last step; of its gradient, where nothing steps it."""
        return self.passes if self.optimizers else self.pending


class Observer(Listener):
    """Watches while it is entered as a context; afterwards it holds what it saw.

    Args:
        on_step: called after each step of an optimizer, with the optimizer.
    """

    def __init__(self, on_step: Callable[[Optimizer], None] | None = None) -> None:
        self.received: dict[int, Received] = {}
        self.steps: dict[Optimizer, int] = {}
        self._on_step = on_step
        self.wrappers: set[Optimizer] = set()
        """The optimizers whose steps are those of one within."""

        self.passes = 0
        self._is_differentiating = False

    @contextmanager
    def watching(self) -> Iterator[Observer]:
        """Within the block, everything is seen; all patches and hooks end with it."""
        with ExitStack() as stack:
            for owner, name, around in (
                (torch.autograd, "backward", self._backward),
                (torch.autograd, "grad", self._backward),
                (torch.amp.GradScaler, "scale", _scale),
            ):
                stack.enter_context(_patched(owner, name, _around(getattr(owner, name), around)))
            # On the class, for plans that are made meanwhile. A patched ``penalty`` would be traced
            # by torch.compile.
            stack.enter_context(_patched(Plan, "_probe", mark))
            stack.callback(listen_to_all(self))
            yield self

    # --- backward ---------------------------------------------------------------------------

    def _backward(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        given = args[0] if args else kwargs.get("tensors", kwargs.get("outputs", ()))
        roots = [given] if isinstance(given, Tensor) else [*given]
        # A pass within a pass is of a checkpoint; one that makes a graph is part of a loss; and
        # one of anything but tensors, or of fakes, is a compiler's, which traces it.
        is_real = all(isinstance(root, Tensor) and not _is_fake(root) for root in roots)
        if self._is_differentiating or kwargs.get("create_graph") or not is_real:
            return original(*args, **kwargs)
        self.passes += 1
        trace = Trace(roots)
        for key, weight in trace.weights.items():
            received = self.received.setdefault(key, Received(weight))
            if _is_clear(weight.grad):
                received.pending.clear()
        self._is_differentiating = True
        try:
            with trace.looking():
                returned = original(*args, **kwargs)
        finally:
            self._is_differentiating = False
        seen = trace.result()
        for key in trace.reached():
            received = self.received[key]
            received.pending.append(seen)
            received.got_gradient = True
            received.size = _size(received.parameter.grad)
        return returned

    # --- steps ------------------------------------------------------------------------------

    def begins(self, step: OptimizerStep) -> None:
        for p in stepped_by([step.optimizer]):
            received = self.received.setdefault(id(p), Received(p))
            received.was_stepped |= p.grad is not None
            # A closure's passes, and the pass that the step is a part of, are yet to come.
            if received.pending and not self._is_differentiating:
                received.rescaled = _size(p.grad) / (received.size or math.nan)

    def ends(self, step: OptimizerStep) -> None:
        optimizer = step.optimizer
        own = {id(p) for p in stepped_by([optimizer])} - step.within
        if not own or shares_groups(optimizer, self.steps):
            self.wrappers.add(optimizer)
            return
        self.steps[optimizer] = self.steps.get(optimizer, 0) + 1
        for group in optimizer.param_groups:
            for p in group["params"]:
                if id(p) in own:
                    self._note(p, optimizer, group)
        if self._on_step is not None:
            self._on_step(optimizer)

    def _note(self, p: Tensor, optimizer: Optimizer, group: dict[str, Any]) -> None:
        received = self.received.setdefault(id(p), Received(p))
        received.optimizers[optimizer] = {k: v for k, v in group.items() if k != "params"}
        received.was_stepped |= p.grad is not None
        received.was_trainable = p.requires_grad
        if received.pending:  # else another optimizer stepped it by the same gradient
            received.passes = list(received.pending)
            received.pending.clear()


@contextmanager
def _patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    own = vars(owner).get(name, owner)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own is owner:  # it had none, but inherited it
            delattr(owner, name)
        else:
            setattr(owner, name, own)


def _around(original: Callable[..., Any], call: Callable[..., Any]) -> Callable[..., Any]:
    """A function that takes the place of another, which it is given."""

    @functools.wraps(original)
    def instead(*args: Any, **kwargs: Any) -> Any:
        return call(original, *args, **kwargs)

    return instead


def _is_clear(gradient: Tensor | None) -> bool:
    if gradient is None:
        return True
    return not bool((gradient._values() if gradient.is_sparse else gradient).any())


def _size(gradient: Tensor | None) -> float:
    if gradient is None or gradient.is_sparse:
        return math.nan
    return float(gradient.detach().norm())


def _is_fake(root: Tensor) -> bool:
    # By their module, which would take long to import.
    return any(kind.__module__.startswith("torch._subclasses") for kind in type(root).__mro__)


def _scale(original: Callable[..., Any], scaler: Any, outputs: Any) -> Any:
    """Notes the factor on the node, so that what is found below can be told without it."""
    scaled = original(scaler, outputs)
    if scaler.is_enabled():
        for tensor in scaled if isinstance(scaled, list | tuple) else [scaled]:
            if isinstance(tensor, Tensor) and tensor.grad_fn is not None:
                note(tensor.grad_fn, SCALED, scaler.get_scale())
    return scaled


def mark(plan: Plan, name: str, penalty: Tensor) -> Tensor:
    """Notes on a declared penalty whose it is, to tell it from one that is written by hand.

    A plan calls it as its probe.
    """
    if not torch.compiler.is_compiling() and penalty.grad_fn is not None:
        note(penalty.grad_fn, DECLARED, (plan, name))
    return penalty
