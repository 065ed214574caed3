"""Adaptive proximal steps where the data gradient has been zero so far."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.optim as opt
from torch import nn

from penalize import L1, L2, GroupLasso, Regularizer
from penalize.backends import torch as xp
from penalize.steps import SLACK, Step, bounded
from penalize.torch import regularize

LR = 1e-3
ADAPTIVE: dict[str, Callable[[Any], opt.Optimizer]] = {
    "Adam": lambda p: opt.Adam(p, lr=LR),
    "NAdam": lambda p: opt.NAdam(p, lr=LR),
    "Adamax": lambda p: opt.Adamax(p, lr=LR),
    "Adagrad": lambda p: opt.Adagrad(p, lr=LR),
    "RMSprop": lambda p: opt.RMSprop(p, lr=LR),
}


@pytest.mark.parametrize("make", ADAPTIVE.values(), ids=ADAPTIVE)
@pytest.mark.parametrize(
    "regularizer",
    [
        L1(1e-5),
        L2(1e-4),
        L1(1e-6) + L2(1e-5),
        GroupLasso(1e-5, groups="outputs"),  # a group that the data has not reached
        GroupLasso(1e-5, groups="inputs"),  # one half of each
    ],
    ids=repr,
)
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
    # The first step in learning rates, by the formulas: RMSprop's average begins at 0.01·g².
    own = {opt.NAdam: 1.0565, opt.RMSprop: 10.0}.get(type(optimizer), 1.0)
    assert 0 < moved <= 1.0001 * SLACK * own * LR


def test_the_bound_leaves_a_minimiser_alone() -> None:
    """There the data gradient is as large as the penalty's, and the denominator with it."""
    w = torch.tensor([2.0, -3.0, 0.0])
    denominator = torch.tensor([0.3, 0.3, 0.1])
    assert torch.equal(bounded(Step(0.1, denominator), L1(0.3).pull(w), xp), 0.1 / denominator)
    assert bounded(Step(0.1), None, xp) == 0.1


SLOW: dict[str, Callable[[Any], opt.Optimizer]] = {
    "SGD": lambda p: opt.SGD(p, lr=LR),
    "Adam": lambda p: opt.Adam(p, lr=LR, betas=(0.9, 0.9999)),
    "amsgrad": lambda p: opt.Adam(p, lr=LR, betas=(0.9, 0.9999), amsgrad=True),
    "NAdam": lambda p: opt.NAdam(p, lr=LR, betas=(0.9, 0.9999)),
    "RAdam": lambda p: opt.RAdam(p, lr=LR, betas=(0.9, 0.9999)),
    "Adamax": lambda p: opt.Adamax(p, lr=LR),
    "Adagrad": lambda p: opt.Adagrad(p, lr=LR),
    "RMSprop": lambda p: opt.RMSprop(p, lr=LR, alpha=0.9999),
}


@pytest.mark.parametrize("make", SLOW.values(), ids=SLOW)
@pytest.mark.parametrize("strength", [0.3, 30.0])
def test_at_a_stationary_point_nothing_moves_from_the_first_step_on(
    make: Any, strength: float
) -> None:
    """The data pulls by −λ, the penalty by λ: update and prox cancel, the bound does not act.

    A second moment with a long memory is near zero at first, and has to be corrected for that.
    """
    w = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(w.weight)
    optimizer = make(w.parameters())
    regularize(w, L1(strength)).attach(optimizer, mode="proximal")
    for _ in range(12):
        w.weight.grad = torch.full_like(w.weight, -strength)
        optimizer.step()
        torch.testing.assert_close(w.weight.item(), 1.0, rtol=0, atol=1e-9 * strength)
