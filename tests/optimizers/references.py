"""What each mode promises, by hand: nothing here is penalize's but the attachment it measures."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from halfspace_reference import HalfSpace
from torch import Tensor, nn
from torch.optim import Optimizer

from optimizers.problem import model_for, train, train_in_backward, weights
from optimizers.rows import Row
from penalize import L1, L2, Regularizer, everything
from penalize.halfspace import AVERAGE
from penalize.torch import regularize

STRENGTH = 0.03
REGULARIZERS = (L1(STRENGTH), L2(STRENGTH))


def attached(row: Row, regularizer: Regularizer, mode: str) -> list[Tensor]:
    """Trained with the plan attached. Raises what refuses it."""
    model = model_for(row)
    optimizers = row.build(list(model.parameters()))
    regularize(model, {everything: regularizer}).attach(optimizers, mode=mode)
    loop = train_in_backward if row.in_backward else train
    return loop(row, model, optimizers)


def with_loss_term(row: Row, regularizer: Regularizer) -> list[Tensor]:
    """``"gradient"``: the penalty is a term of the loss."""

    def penalty(model: nn.Module) -> Tensor:
        terms = [w.abs() if isinstance(regularizer, L1) else w * w for w in model.parameters()]
        return STRENGTH * torch.stack([term.sum() for term in terms]).sum()

    model = model_for(row)
    return train(row, model, row.build(list(model.parameters())), penalty=penalty)


@torch.no_grad()
def _move(regularizer: Regularizer, optimizers: Sequence[Optimizer]) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for w in group["params"]:
                if isinstance(regularizer, L1):
                    w -= group["lr"] * (STRENGTH * w.sign())
                else:
                    w *= 1 - group["lr"] * (2 * STRENGTH)  # as AdamW writes it


def decoupled_by_hand(row: Row, regularizer: Regularizer) -> list[Tensor]:
    """``"decoupled"``: the weights are moved along the penalty's gradient before the update."""
    model = model_for(row)
    optimizers = row.build(list(model.parameters()))
    return train(row, model, optimizers, before_update=lambda _, o: _move(regularizer, o))


# --- the half-space step --------------------------------------------------------------------


class _Loop:
    """A plain loop in NumPy, around each step of an optimizer."""

    def __init__(self, optimizer: Optimizer, row: Row) -> None:
        self._held = [p for group in optimizer.param_groups for p in group["params"]]
        self._rules = [HalfSpace(_flat(p), AVERAGE, element=STRENGTH) for p in self._held]
        self._before = [_flat(p) for p in self._held]
        self._sign = row.sign
        self._step = optimizer.step

    @torch.no_grad()
    def begin(self) -> None:
        self._before = [_flat(p) for p in self._held]
        for p, rule, w in zip(self._held, self._rules, self._before, strict=True):
            gradient = _flat(torch.zeros_like(p) if p.grad is None else p.grad)
            given = torch.tensor(self._sign * rule.before(w, self._sign * gradient))
            p.grad = given.reshape(p.shape)

    def step(self, closure: Callable[[], Any] | None = None) -> None:
        def ready() -> Any:
            loss = None if closure is None else closure()
            self.begin()
            return loss

        if closure is None:
            ready()
        self._step(*([] if closure is None else [ready]))
        for p, rule, w in zip(self._held, self._rules, self._before, strict=True):
            p.data.copy_(torch.tensor(rule.after(w, _flat(p))).reshape(p.shape))


def _flat(x: Tensor) -> np.ndarray:
    return x.detach().numpy().reshape(-1).copy()


def halfspace_by_hand(row: Row, regularizer: Regularizer) -> list[Tensor]:
    """``"halfspace"``: the rule by hand, before and after each step."""
    model = model_for(row)
    optimizers = row.build(list(model.parameters()))
    for optimizer in optimizers:
        vars(optimizer)["step"] = _Loop(optimizer, row).step
    loop = train_in_backward if row.in_backward else train
    return loop(row, model, optimizers)


# --- the proximal step ----------------------------------------------------------------------
#
# Hold the weights at zero under a constant gradient g until the optimizer's state has settled. What
# its next step is without a penalty, −t·g, says what step t it really takes. The proximal step must
# then arrive at the prox, by hand, of t·Ω at −t·g: for an L1 that is zero just where |g| ≤ λ,
# which is when zero is the minimiser.

_RATIOS = torch.tensor([0.7, -0.7, 0.9, -0.9, 1.1, -1.1, 3.0, -3.0], dtype=torch.float64)


def _gradient(parameter: nn.Parameter) -> Tensor:
    """Entries on both sides of ±λ."""
    count = parameter.numel()
    gradient = STRENGTH * _RATIOS.repeat(count // len(_RATIOS) + 1)[:count]
    return gradient.reshape(parameter.shape).to(parameter.device)


@functools.cache
def _held_at_zero(row: Row, regularizer: Regularizer | None) -> Tensor:
    """Where the last of many steps from zero leads."""
    model = model_for(row)
    optimizers = row.build(list(model.parameters()))
    if regularizer is not None:
        regularize(model, {everything: regularizer}).attach(optimizers, mode="proximal")
    gradients = [(parameter, row.sign * _gradient(parameter)) for parameter in model.parameters()]
    settled = 250 if row.kwargs.get("momentum") else 60
    for _ in range(settled):
        for parameter, gradient in gradients:
            parameter.detach().zero_()
            parameter.grad = gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    return weights(model)


def proximal(row: Row, regularizer: Regularizer) -> list[Tensor]:
    """Where the proximal step leads. Raises what refuses it."""
    return [_held_at_zero(row, regularizer)]


def proximal_by_hand(row: Row, regularizer: Regularizer) -> list[Tensor]:
    """Where it should, by the step that the optimizer takes without a penalty."""
    moved = _held_at_zero(row, None)
    gradients = [_gradient(parameter) for parameter in model_for(row).parameters()]
    step = -moved / nn.utils.parameters_to_vector(gradients)
    if isinstance(regularizer, L1):
        return [moved.sign() * (moved.abs() - step * STRENGTH).clamp(min=0)]
    return [moved / (1 + 2 * STRENGTH * step)]
