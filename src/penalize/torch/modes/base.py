"""A mode: one way in which a plan acts on a step.

It acts before the update, when the gradients are ready, or after it, without an autograd graph. The
penalty does not depend on the data, so every mode acts on each trainable parameter in each step,
also where the data gave no gradient, just as a loss term would.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from penalize.errors import ModeError, RoundedAwayWarning, some
from penalize.torch.clock import Group, OptimizerStep
from penalize.torch.kernels import Router
from penalize.torch.model.targets import Live, Target, joined_in
from penalize.torch.modes.memories import Memories
from penalize.torch.modes.step_sizes import rate_of


class Active(ABC):
    """Whoever knows the targets of an optimizer."""

    @abstractmethod
    def active(self, groups: Mapping[int, Group]) -> Sequence[Live]:
        """The targets that are trainable now; the param groups are by id of the parameter."""


class Replayed(NamedTuple):
    """A step that an audit has seen, by the identity of a parameter."""

    weights: Mapping[int, Tensor]
    """The weights after it, without the penalty."""

    gradients: Mapping[int, Tensor]
    """What the optimizers were given in it, without the penalty."""

    groups: Mapping[int, Group]
    """The param groups of what was stepped."""

    states: Mapping[int, Mapping[str, Any]]
    """The states of the optimizers after it, with the penalty."""

    optimizers: Mapping[int, Optimizer]
    """The optimizers."""


class Effect(NamedTuple):
    """What one application of a penalty changes in a step."""

    of: Literal["gradients", "weights"]
    """Where it is to be seen: in what the optimizer is given, or in the weights afterwards."""

    changes: Mapping[nn.Parameter, Tensor]
    """The change of each parameter behind the weight that is stepped."""

    is_linear: bool = True
    """Whether twice the penalty changes twice as much, so that a factor can be told."""


class Mode(ABC):
    """One way to act on a step. Each overrides what it does; ``docs`` and CONTRIBUTING say how."""

    name: ClassVar[str]

    clip: ClassVar[str] = "without"
    """Whether what a loop clips has the penalty in it."""

    spans: ClassVar[bool] = False
    """Whether it acts on groups that span parameters, of which a target has several then."""

    once: ClassVar[bool] = False
    """Whether ``before`` acts once per step, not after each evaluation of a closure."""

    def __init__(self, *, values: bool = False) -> None:
        self._values = values
        self.value: Tensor | None = None
        """Σ Ω(w) of the last step, before it; None where it was not asked for."""

        self._without: list[nn.Parameter] = []
        """Parameters that had no gradient, and were given one for this step."""

        self.router = Router()
        """Decides how each weight is computed with."""

        self.joined_router = Router()
        """The same of groups that span parameters, which are copied anew in each step."""

        self.memories: Memories | None = None
        """What it remembers of each weight between steps, if anything."""

    @abstractmethod
    def check(self, target: Target, optimizer: Optimizer) -> None:
        """Raise a sentence if the mode cannot act on this target with this optimizer."""

    def check_all(self, targets: Sequence[Target]) -> None:  # noqa: B027  # most have none
        """Raise a sentence if it would do nothing for any target of a plan."""

    def advise(  # noqa: B027  # most have nothing to say
        self, targets: Sequence[Target], groups: Mapping[int, Group], optimizer: Optimizer
    ) -> None:
        """Warn of what can be done, and is of no use."""

    def listen(
        self, targets: Sequence[Target], optimizer: Optimizer, active: Active
    ) -> list[RemovableHandle]:
        """Further hooks that it needs. They hold neither the optimizer nor ``active``."""
        return []

    @abstractmethod
    def before(self, targets: Sequence[Live], step: OptimizerStep) -> None:
        """Act before the update.

        Whatever it has to refuse it refuses before it acts on any target.
        """

    def after(self, targets: Sequence[Live], step: OptimizerStep) -> None:
        """Act after the update."""
        self.take_back()

    def why_not_by_closure(self, optimizer: Optimizer) -> str | None:
        """Why it cannot act in a step whose closure computes the gradients; None if it can."""
        return None

    def before_closure(self, targets: Sequence[Live], step: OptimizerStep) -> bool:
        """Act where a step begins that has a closure, and may move the weights before it calls it.

        Not called for PyTorch's own optimizers, which call it first.

        Returns:
            Whether the gradients have the penalty in them now.
        """
        return False

    def at_closure(self) -> None:  # noqa: B027  # the same
        """Take back what :meth:`before_closure` did to gradients: the closure is called."""

    def broken_off(self, targets: Sequence[Live], step: OptimizerStep) -> None:
        """Answer for an earlier step that raised after ``before`` had acted."""
        self.take_back()

    def pending(self) -> Any:
        """What it knows of the steps before, to be put back by :meth:`wait_for`."""
        return None if self.memories is None else self.memories.kept

    def wait_for(self, pending: Any) -> None:
        """Go on from what :meth:`pending` gave."""
        if self.memories is not None:
            self.memories.kept = pending

    @abstractmethod
    def effect(self, target: Target, run: Replayed) -> Effect:
        """What one application on a target changes in a step: what an audit compares with."""

    # --- what modes share -------------------------------------------------------------------

    def gradient_of(self, parameter: nn.Parameter) -> Tensor:
        """The gradient of a parameter; where it has none, zeros for this step."""
        gradient = parameter.grad
        if gradient is None:
            gradient = parameter.grad = torch.zeros_like(parameter)
            self._without.append(parameter)
        return gradient

    def gradients_of(self, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
        """The same of each."""
        gradients = list(map(_GRADIENT, parameters))
        if _NONE in map(type, gradients):
            return list(map(self.gradient_of, parameters))
        return gradients

    def take_back(self) -> None:
        """Take away the gradients that were given for a step."""
        for parameter in self._without:
            parameter.grad = None
        self._without.clear()


_GRADIENT, _NONE = attrgetter("grad"), type(None)

MAY_BE_SKIPPED = "only the device knows whether this step is skipped"


def total(values: Iterable[Tensor | None]) -> Tensor:
    """The sum of values in float64, on the device of the first."""
    first, *others = [value for value in values if value is not None] or [torch.zeros(())]
    return sum((value.to(first.device) for value in others), first.double())


def gradients_of(target: Target | Live) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """The gradient of the penalty with respect to each parameter behind the weight."""
    joined = joined_in(target)
    if joined is not None:
        yield from joined.gradients(target.regularizer)
        return
    sources = [p for p in target.parameters if p.requires_grad]
    if not target.binding.effective:
        yield sources[0], target.regularizer.gradient(sources[0])
        return
    with torch.enable_grad():
        penalty = target.regularizer(target.binding.read())
    computed = torch.autograd.grad(penalty, sources, allow_unused=True)
    yield from ((p, g) for p, g in zip(sources, computed, strict=True) if g is not None)


def check_can_be_set(mode: Mode, target: Target) -> None:
    """A weight that is computed from other parameters cannot be set."""
    if joined_in(target) is not None and not mode.spans:
        raise ModeError(
            f"mode={mode.name!r} acts on one parameter at a time, and the group {target.name!r} "
            "spans several",
            'use mode="gradient", or leave it out of together=',
        )
    if target.binding.effective and joined_in(target) is None:
        raise ModeError(
            f"{target.name!r} is computed from other parameters, so mode={mode.name!r} cannot set "
            "it",
            'use mode="gradient", or exempt it with a rule that gives None',
        )


Move = Callable[[Target, Tensor, Any], Tensor]
"""(target, weight, learning rate) → where a penalty moves the weight."""


@torch.no_grad()
def warn_if_rounded_away(
    mode: Mode, targets: Sequence[Target], groups: Mapping[int, Group], move: Move
) -> None:
    """Warn of weights in half precision that would never move."""
    lost = [t.name for t in targets if _is_rounded_away(t, groups, move)]
    if lost:
        warnings.warn(
            f"{some(lost)}: in half precision the steps of mode={mode.name!r} are rounded away "
            "and most weights would never move. Keep the weights in float32 (autocast computes "
            'in half precision), or use mode="gradient".',
            RoundedAwayWarning,
            stacklevel=7,
        )


def _is_rounded_away(target: Target, groups: Mapping[int, Group], move: Move) -> bool:
    """Whether most weights would stay where they are, though the penalty pulls at them."""
    first, *_ = target.parameters
    w = target.binding.read()
    if w.dtype.itemsize > 2 or w.is_meta:
        return False
    group = groups[id(first)]
    lr = max(rate_of(group), group.get("initial_lr", 0.0))  # a warm-up begins below
    pulled = move(target, w.float(), lr) != w
    moved = move(target, w, lr) != w
    return bool(2 * moved.sum() < pulled.sum())
