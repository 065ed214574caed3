"""How a plan acts on a step: as a gradient, decoupled, or by the proximal operator.

A mode acts before the update, when the gradients are ready, or after it, without an autograd graph.
The penalty does not depend on the data, so every mode acts on each trainable parameter in each
step, also where the data gave no gradient, just as a loss term would.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from penalize.errors import ModeError
from penalize.regularizers.base import Regularizer
from penalize.torch.bindings import Binding
from penalize.torch.steps import KNOWN, bounded, is_per_element, step_size_of

Group = Mapping[str, Any]


@dataclass(frozen=True)
class Target:
    """One weight and its regularizer, as a mode sees them."""

    name: str
    binding: Binding
    regularizer: Regularizer


class Mode:
    """One way to act on a step. Each overrides what it does."""

    name: ClassVar[str]

    once: ClassVar[bool] = False
    """Whether ``before`` acts once per step, not after each evaluation of a closure."""

    def check(self, target: Target, optimizer: Optimizer) -> None:
        """Raise a sentence if the mode cannot act on this target with this optimizer."""

    def before(self, targets: Sequence[Target], groups: Mapping[int, Group]) -> None:
        """Act before the update; ``groups`` are the param groups by id of the parameter.

        Whatever it has to refuse it refuses before it acts on any target.
        """

    def after(
        self, targets: Sequence[Target], groups: Mapping[int, Group], optimizer: Optimizer
    ) -> None:
        """Act after the update."""


class Gradient(Mode):
    """Adds ∇Ω(w) to ``.grad`` before the update: the gradient that the loss term would give."""

    name = "gradient"

    def before(self, targets: Sequence[Target], groups: Mapping[int, Group]) -> None:
        for target in targets:
            _check_dense(target)
        for target in targets:
            for parameter, gradient in gradients_of(target):
                sign = -1 if groups[id(parameter)].get("maximize", False) else 1
                if parameter.grad is None:
                    parameter.grad = sign * gradient
                else:
                    parameter.grad.add_(gradient, alpha=sign)


def gradients_of(target: Target) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """The gradient of the penalty with respect to each parameter behind the weight."""
    sources = [p for p in target.binding.parameters() if p.requires_grad]
    if not target.binding.effective:
        yield sources[0], target.regularizer.gradient(sources[0])
        return
    with torch.enable_grad():
        penalty = target.regularizer(target.binding.read())
    computed = torch.autograd.grad(penalty, sources, allow_unused=True)
    yield from ((p, g) for p, g in zip(sources, computed, strict=True) if g is not None)


def _check_dense(target: Target) -> None:
    if any(p.grad is not None and p.grad.is_sparse for p in target.binding.parameters()):
        raise ModeError(
            f"{target.name!r} has a sparse gradient, and the gradient of {target.regularizer!r} "
            "is dense",
            "build the embedding with sparse=False, or exempt it with a rule that gives None",
        )


class Decoupled(Mode):
    """w ← w − lr·∇Ω(w) before the update, as AdamW does with its weight decay."""

    name = "decoupled"
    once = True

    def check(self, target: Target, optimizer: Optimizer) -> None:
        _check_can_be_set(self, target)
        for group in optimizer.param_groups:
            if isinstance(optimizer, LBFGS) or not isinstance(
                group.get("lr"), float | int | Tensor
            ):
                raise ModeError(
                    f'mode="decoupled" needs a learning rate that scales the update, and '
                    f"{type(optimizer).__name__} has none",
                    'use mode="gradient"',
                )

    def before(self, targets: Sequence[Target], groups: Mapping[int, Group]) -> None:
        for target in targets:
            (parameter,) = target.binding.parameters()
            lr = groups[id(parameter)]["lr"]
            l1, l2, rest = target.regularizer.split()
            if l1 or rest:
                parameter.sub_(lr * target.regularizer.gradient(parameter))
            else:
                parameter.mul_(1 - lr * (2 * l2))  # rounded as AdamW rounds it, bit for bit


class Proximal(Mode):
    """w ← prox of step·Ω at w after the update, with the step that the optimizer really took."""

    name = "proximal"

    def check(self, target: Target, optimizer: Optimizer) -> None:
        _check_can_be_set(self, target)
        if step_size_of(optimizer) is None:
            raise ModeError(
                f'mode="proximal" needs the step that the optimizer really takes, and that of '
                f"{type(optimizer).__name__} is not known",
                f'use one of {KNOWN}, or mode="gradient"',
            )
        target.regularizer.check_prox(
            per_element=is_per_element(optimizer),
            where=f"{target.name!r} under {type(optimizer).__name__}",
        )

    def before(self, targets: Sequence[Target], groups: Mapping[int, Group]) -> None:
        for target in targets:
            (parameter,) = target.binding.parameters()
            if parameter.grad is None:
                # Otherwise the optimizer would take no step here, and the prox would have no size.
                parameter.grad = torch.zeros_like(parameter)

    def after(
        self, targets: Sequence[Target], groups: Mapping[int, Group], optimizer: Optimizer
    ) -> None:
        step_size = step_size_of(optimizer)
        assert step_size is not None  # by check()
        for target in targets:
            (parameter,) = target.binding.parameters()
            taken = step_size(groups[id(parameter)], optimizer.state.get(parameter, {}))
            step = bounded(taken, target.regularizer.gradient(parameter))
            parameter.copy_(target.regularizer.prox(parameter, step))


def _check_can_be_set(mode: Mode, target: Target) -> None:
    if target.binding.effective:
        raise ModeError(
            f"{target.name!r} is computed from other parameters, so mode={mode.name!r} cannot set "
            "it",
            'use mode="gradient", or exempt it with a rule that gives None',
        )


MODES: dict[str, Mode] = {mode.name: mode for mode in (Gradient(), Decoupled(), Proximal())}


def mode_named(name: object) -> Mode:
    """The mode of that name. Raises :class:`ModeError` if there is none."""
    if not isinstance(name, str) or name not in MODES:
        raise ModeError(f"there is no mode {name!r}", f"expected one of {', '.join(MODES)}")
    return MODES[name]
