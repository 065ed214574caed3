"""Adaptive proximal steps where the data gradient has been zero so far."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.optim as opt
from torch import nn

from penalize import L1, L2, Regularizer
from penalize.steps import SLACK, Step
from penalize.torch import regularize
from penalize.torch.steps import bounded

LR = 1e-3
ADAPTIVE: dict[str, Callable[[Any], opt.Optimizer]] = {
    "Adam": lambda p: opt.Adam(p, lr=LR),
    "NAdam": lambda p: opt.NAdam(p, lr=LR),
    "Adamax": lambda p: opt.Adamax(p, lr=LR),
    "Adagrad": lambda p: opt.Adagrad(p, lr=LR),
    "RMSprop": lambda p: opt.RMSprop(p, lr=LR),
}


@pytest.mark.parametrize("make", ADAPTIVE.values(), ids=ADAPTIVE)
@pytest.mark.parametrize("regularizer", [L1(1e-5), L2(1e-4), L1(1e-6) + L2(1e-5)], ids=repr)
def test_a_weight_that_the_data_has_not_reached_is_not_erased(
    make: Any, regularizer: Regularizer
) -> None:
    """Its denominator is eps: unbounded, the first step would set it to zero."""
    assert L1(1e-5).prox(torch.tensor(0.5), LR / 1e-8) == 0  # naive
    model = nn.Linear(3, 2, bias=False)
    nn.init.constant_(model.weight, 0.5)
    optimizer = make(model.parameters())
    regularize(model, regularizer).attach(optimizer, mode="proximal")
    model.weight.grad = torch.zeros_like(model.weight)
    model.weight.grad[0] = 1.0
    optimizer.step()
    moved = (0.5 - model.weight.detach()[1]).max().item()
    # The first step of NAdam is 1.0565 times the learning rate, by its formula.
    own = 1.0565 * LR if isinstance(optimizer, opt.NAdam) else LR
    assert 0 < moved <= 1.0001 * SLACK * own


def test_the_bound_leaves_a_minimiser_alone() -> None:
    """There the data gradient is as large as the penalty's, and the denominator with it."""
    gradient = torch.tensor([0.3, -0.3, 0.0])
    denominator = torch.tensor([0.3, 0.3, 0.1])
    assert torch.equal(bounded(Step(0.1, denominator), gradient), 0.1 / denominator)
    assert bounded(Step(0.1), gradient) == 0.1
