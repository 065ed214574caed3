"""A small regression in float64, and the loops that train it."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optimizers.rows import Row

STEPS = 10

Penalty = Callable[[nn.Module], Tensor | float]
BeforeUpdate = Callable[[nn.Module, Sequence[Optimizer]], None]

_random = torch.Generator().manual_seed(0)
X = torch.randn(12, 6, generator=_random, dtype=torch.float64)
TOKENS = torch.randint(0, 6, (12,), generator=_random)
Y = torch.randn(12, 3, generator=_random, dtype=torch.float64)


def model_for(row: Row) -> nn.Module:
    """Two matrices, which is what every optimizer takes; an embedding where it wants one."""
    return copy.deepcopy(_model(row.sparse)).to("cuda" if row.needs_cuda else "cpu")


@functools.cache
def _model(sparse: bool) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        if sparse:
            return nn.Embedding(6, 3, sparse=True, dtype=torch.float64)
        first, last = nn.Linear(6, 4, bias=False), nn.Linear(4, 3, bias=False)
        model = nn.Sequential(first, nn.Tanh(), last).double()
    with torch.no_grad():
        first.weight[0] = 0.0  # a penalty's kink
    return model


def _nothing(model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
    pass


def train(
    row: Row,
    model: nn.Module,
    optimizers: Sequence[Optimizer],
    penalty: Penalty = lambda _: 0.0,
    before_update: BeforeUpdate = _nothing,
) -> list[Tensor]:
    """All weights after each step, one vector per step.

    Args:
        row: how the loop has to look, and the sign of the objective.
        model: from ``model_for``.
        optimizers: of the model's parameters.
        penalty: what is added to the loss.
        before_update: what is done when the gradients are ready.
    """
    device = next(model.parameters()).device
    x, y = (TOKENS if row.sparse else X).to(device), Y.to(device)

    def backward() -> Tensor:
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss: Tensor = row.sign * (nn.functional.mse_loss(model(x), y) + penalty(model))
        loss.backward()
        before_update(model, optimizers)
        return loss

    passed = []
    for _ in range(STEPS):
        if row.closure:
            for optimizer in optimizers:
                optimizer.step(backward)
        else:
            backward()
            for optimizer in optimizers:
                optimizer.step()
        passed.append(weights(model))
    for optimizer in optimizers:
        if hasattr(optimizer, "eval"):  # it evaluates other weights than those that it trains
            optimizer.eval()
            passed.append(weights(model))
    return passed


def train_in_backward(row: Row, model: nn.Module, optimizers: Sequence[Optimizer]) -> list[Tensor]:
    """The same, with each parameter stepped as soon as its gradient is there."""

    def stepper(optimizer: Optimizer) -> Callable[[Tensor], None]:
        def step(_: Tensor) -> None:
            optimizer.step()
            optimizer.zero_grad()

        return step

    for optimizer in optimizers:
        (parameter,) = optimizer.param_groups[0]["params"]
        parameter.register_post_accumulate_grad_hook(stepper(optimizer))
    passed = []
    for _ in range(STEPS):
        nn.functional.mse_loss(model(X), Y).backward()
        passed.append(weights(model))
    return passed


def weights(model: nn.Module) -> Tensor:
    """A copy of all of them in one vector."""
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()
