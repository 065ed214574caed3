"""Trap 45: an optimizer that is called with a closure, whose gradients are not there yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from penalize import L1, L2, Regularizer
from penalize.torch import regularize

X = torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.randn(40, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "LBFGS": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=8),
    "LBFGS with line search": lambda p: torch.optim.LBFGS(
        p, max_iter=8, line_search_fn="strong_wolfe"
    ),
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.1),
}


def train(
    make: Callable[[Any], torch.optim.Optimizer],
    penalize: Callable[[nn.Module, torch.optim.Optimizer], Callable[[], Any]],
) -> torch.Tensor:
    """The weight after five steps; ``penalize`` gives what is added to the loss."""
    torch.manual_seed(0)
    model = nn.Linear(6, 1, bias=False, dtype=torch.float64)
    optimizer = make(model.parameters())
    penalty = penalize(model, optimizer)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss: torch.Tensor = nn.functional.mse_loss(model(X), Y) + penalty()
        loss.backward()
        return loss

    for _ in range(5):
        optimizer.step(closure)
    return model.weight.detach()


@pytest.mark.parametrize("r", [L2(0.3), L1(0.05) + L2(0.1)], ids=str)
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_attached_as_in_the_loss(
    make: Callable[[Any], torch.optim.Optimizer], r: Regularizer
) -> None:
    def in_the_loss(model: nn.Module, _: torch.optim.Optimizer) -> Callable[[], Any]:
        return lambda: r(model.weight)

    def naive(model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
        """A hook before the step adds to gradients that the closure then clears."""

        def add(*_: Any) -> None:
            if model.weight.grad is not None:
                model.weight.grad += r.gradient(model.weight.detach())

        optimizer.register_step_pre_hook(add)
        return lambda: 0.0

    def attached(model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
        regularize(model, r).attach(optimizer)
        return lambda: 0.0

    expected = train(make, in_the_loss)
    assert (train(make, naive) - expected).abs().max() > 1e-3
    torch.testing.assert_close(train(make, attached), expected, rtol=1e-9, atol=1e-9)
