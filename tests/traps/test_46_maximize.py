"""Trap 46: an optimizer that maximises."""

from __future__ import annotations

import torch
from torch import nn

from penalize import L2
from penalize.torch import regularize


def step(mode: str | None) -> float:
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, maximize=True)
    plan = regularize(model, L2(0.1))
    if mode is None:
        plan.penalty().backward()
    else:
        plan.attach(optimizer, mode=mode)
    optimizer.step()
    return float(model.weight.detach())


def test_the_sign_is_right() -> None:
    assert step(None) > 1  # naive: a penalty that is added to a reward is maximised
    for mode in ("gradient", "decoupled", "proximal"):
        assert step(mode) < 1
