"""Running a loss or a step again from the same state, and looking at what reaches the optimizer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from penalize.alive import alive
from penalize.errors import LossError, ModelError
from penalize.torch.auditing.models_alive import stepped_by
from penalize.torch.clock import OptimizerStep, listen, listen_to_all
from penalize.torch.listener import Listener
from penalize.torch.modes.gradient import copied


class Seen(NamedTuple):
    """One run. Tensors are by the identity of their parameter."""

    gradients: dict[int, Tensor]
    """What the optimizers were given, or the gradients of the loss; where there was one."""

    weights: dict[int, Tensor]
    """What the parameters were afterwards."""

    groups: dict[int, dict[str, Any]]
    """The param group of each parameter that was stepped, as it was then."""

    states: dict[int, dict[str, Any]]
    """The optimizer's state of each, afterwards."""

    optimizers: dict[int, Optimizer]
    """The optimizer of each."""

    def moved(self, p: Tensor) -> list[Tensor]:
        """What a step changes of a parameter: its weights, and what the optimizer keeps of it."""
        return [self.weights[id(p)], *_of_weights(self.states.get(id(p)))]


def _of_weights(kept: Any) -> Iterator[Tensor]:
    if isinstance(kept, dict | list | tuple):
        for each in kept.values() if isinstance(kept, dict) else kept:
            yield from _of_weights(each)
    elif isinstance(kept, Tensor) and kept.ndim > 0 and kept.is_floating_point():
        yield kept


Act = Callable[[Optimizer], None]
"""Something to do to an optimizer right before its update."""


class Replay:
    """A model, and whatever the optimizers step beside it, put back after each run.

    Args:
        model: the model.
        kept: what else is put back when the stack that it gives is closed.

    Raises:
        ModelError: a parameter has no values: it is lazy, or on the meta device.
    """

    def __init__(self, model: nn.Module, kept: Callable[[], ExitStack]) -> None:
        self._kept = kept
        self.parameters = list(model.parameters())
        """The model's."""

        if any(isinstance(p, UninitializedParameter) or p.is_meta for p in self.parameters):
            raise ModelError(
                f"this {type(model).__name__} has parameters without values (lazy, or on the meta "
                "device), and an audit has to compute with them",
                "run one batch through it, or load it, first",
            )
        self._values = [(t, t.detach().clone()) for t in (*self.parameters, *model.buffers())]
        # A forward pass may put another tensor in a buffer's place.
        self._buffers = [(m._buffers, dict(m._buffers)) for m in model.modules()]
        # These themselves are put back, whoever knows them; what runs has copies.
        self._gradients = [(p, p.grad) for p in self.parameters]
        self._optimizers: dict[Optimizer, _Kept] = {}
        mine = {id(p) for p in self.parameters}
        for optimizer in alive(Optimizer):
            # Now: a step may set learning rates before it steps.
            if any(id(p) in mine for p in stepped_by([optimizer])):
                self.keep(optimizer, is_stepping=False)

    def run(self, call: Callable[[], Any], act: Act | None = None) -> Seen:
        """What happens in one call, after which everything is as it was.

        Args:
            call: the loss or step.
            act: called before each update, after every hook on it; what it does is put back too.

        Raises:
            LossError: it neither stepped an optimizer nor returned a loss with a gradient, or it
                stepped one by a closure, or one of them twice.
        """
        seen = Seen({}, {}, {}, {}, {})
        with self._kept(), torch.random.fork_rng(), self._listening(seen, act):
            try:
                for p, gradient in self._gradients:
                    p.grad = None if gradient is None else copied(gradient)
                value = call()
                if not seen.groups:
                    self._differentiate(value, seen)
                for p in self.parameters:
                    seen.weights[id(p)] = p.detach().clone()
                for optimizer in self._optimizers:
                    for stepped, state in optimizer.state.items():
                        if seen.optimizers.get(id(stepped)) is optimizer:
                            seen.states[id(stepped)] = _copies(state)
            finally:
                self._put_back()
        return seen

    def _differentiate(self, value: Any, seen: Seen) -> None:
        if not (isinstance(value, Tensor) and value.requires_grad and value.ndim == 0):
            raise LossError(
                f"what was audited returned a {type(value).__name__}, and stepped no optimizer",
                "return the loss, a scalar tensor, before backward(); or do the whole step",
            )
        wanted = [p for p in self.parameters if p.requires_grad]
        found = torch.autograd.grad(value, wanted, allow_unused=True)
        seen.gradients.update(
            (id(p), _dense(g)) for p, g in zip(wanted, found, strict=True) if g is not None
        )

    @contextmanager
    def _listening(self, seen: Seen, act: Act | None) -> Iterator[None]:
        """Note what each optimizer is given, after every hook on it has acted."""
        takes = _Takes(self, seen, act)
        end = listen_to_all(takes)
        try:
            for optimizer in self._optimizers:
                takes.note_last(optimizer)
            yield
        finally:
            end()
            takes.remove()

    def keep(self, optimizer: Optimizer, *, is_stepping: bool) -> None:
        """Note the state of an optimizer.

        It may step more than the model, such as the model around the one that was planned. Where it
        is about to take its first step, and holds nothing of the model, that has its value yet; its
        gradients are of this step already, and are cleared.
        """
        if optimizer in self._optimizers:
            return
        self._optimizers[optimizer] = _Kept(optimizer)
        known = {id(tensor) for tensor, _ in self._values}
        for group in optimizer.param_groups:
            for p in group["params"]:
                if id(p) not in known:
                    self._values.append((p, p.detach().clone()))
                    self._gradients.append((p, None if is_stepping else p.grad))

    def _put_back(self) -> None:
        for buffers, were in self._buffers:
            buffers.clear()
            buffers.update(were)
        with torch.no_grad():
            for tensor, value in self._values:
                tensor.copy_(value)
        for p, gradient in self._gradients:
            p.grad = gradient
        for optimizer, kept in self._optimizers.items():
            kept.put_back(optimizer)


class _Takes(Listener):
    """Fills what is seen of one run."""

    def __init__(self, replay: Replay, seen: Seen, act: Act | None) -> None:
        self._replay = replay
        self._seen = seen
        self._act = act
        self._hooks: dict[Optimizer, _Last] = {}
        self._handles: list[RemovableHandle] = []
        self._finished: set[Optimizer] = set()

    def begins(self, step: OptimizerStep) -> None:
        optimizer = step.optimizer
        if step.has_closure:
            raise LossError(
                f"{type(optimizer).__name__} is stepped with a closure, which may run often",
                "pass a function that returns the loss, in place of the step, or one that computes "
                "the gradients and calls step() without a closure",
            )
        if optimizer in self._finished:
            raise LossError(
                "what was audited steps an optimizer more than once",
                "pass a function that does one step",
            )
        self._replay.keep(optimizer, is_stepping=True)
        self.note_last(optimizer)

    def note_last(self, optimizer: Optimizer) -> None:
        """Have it noted what an optimizer is given: from before its step, as it may be compiled."""
        # One that never called Optimizer.__init__ has no hooks, and steps another one.
        if optimizer not in self._hooks and hasattr(optimizer, "_optimizer_step_pre_hooks"):
            # The optimizer's own hooks run after this, in their order: this is the last of them.
            last = self._hooks[optimizer] = _Last(self._note)
            self._handles += listen(optimizer, last)

    def ends(self, step: OptimizerStep) -> None:
        self._finished.add(step.optimizer)

    def _note(self, optimizer: Optimizer) -> None:
        seen = self._seen
        for group in optimizer.param_groups:
            for p in group["params"]:
                if seen.optimizers.get(id(p)) in self._finished:
                    continue  # two optimizers step it, and this one is the second
                # Within the step of another one, this is the one that it wraps.
                seen.optimizers[id(p)] = optimizer
                seen.groups[id(p)] = {k: v for k, v in group.items() if k != "params"}
                if p.grad is not None:
                    seen.gradients[id(p)] = _dense(p.grad.detach())
        if self._act is not None:
            self._act(optimizer)

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


class _Last(Listener):
    """Calls something when an optimizer has been given all that it is given."""

    def __init__(self, note: Callable[[Optimizer], None]) -> None:
        self._note = note

    def ready(self, step: OptimizerStep) -> None:
        self._note(step.optimizer)


def _dense(gradient: Tensor) -> Tensor:
    """A copy, which a penalty's gradient can be compared with."""
    return gradient.to_dense() if gradient.is_sparse else gradient.clone()


class _Kept:
    """What an optimizer was: its state, its param groups, and the numbers among its attributes."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._state = {p: _copies(held) for p, held in optimizer.state.items()}
        self._groups = [_settings(group) for group in optimizer.param_groups]
        # Some count their steps there, or keep a step size that they estimate.
        self._numbers = {k: _copies(v) for k, v in vars(optimizer).items() if _is_number(v)}

    def put_back(self, optimizer: Optimizer) -> None:
        optimizer.state.clear()
        optimizer.state.update({p: _copies(held) for p, held in self._state.items()})
        for group, values in zip(optimizer.param_groups, self._groups, strict=True):
            for name in group.keys() - values.keys() - {"params"}:
                del group[name]  # a step that was the first may have added it
            group.update(_copies(values))
        vars(optimizer).update(_copies(self._numbers))


def _settings(group: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _copies(value) for name, value in group.items() if name != "params"}


def _is_number(held: Any) -> bool:
    return isinstance(held, bool | int | float | Tensor) and not isinstance(held, nn.Parameter)


def _copies(held: Any) -> Any:
    """A copy of what an optimizer keeps; of a tensor in a graph, without the graph."""
    if isinstance(held, Tensor) and not held.is_leaf:
        return held.detach().clone()
    if type(held) in (dict, list):
        pairs = held.items() if isinstance(held, dict) else enumerate(held)
        copied = {key: _copies(value) for key, value in pairs}
        return copied if isinstance(held, dict) else [*copied.values()]
    return copy.deepcopy(held)
