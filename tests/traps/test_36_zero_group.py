"""Trap 36: the norm of a group of zeros has no gradient."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from penalize import GroupLasso
from penalize.torch import regularize


@pytest.mark.parametrize("mode", ["loss", "gradient", "decoupled", "proximal"])
def test_finite_and_zero(mode: str) -> None:
    naive = torch.zeros(3, requires_grad=True)
    naive.pow(2).sum().sqrt().backward()
    assert naive.grad is not None
    assert naive.grad.isnan().all()

    model = nn.Linear(4, 3)
    with torch.no_grad():
        model.weight[1] = 0.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plan = regularize(model, GroupLasso(0.1, groups="outputs"))
    optimizer.zero_grad()
    if mode == "loss":
        plan.penalty().backward()
    else:
        plan.attach(optimizer, mode=mode)
    optimizer.step()
    assert model.weight.isfinite().all()
    assert (model.weight[1] == 0).all()
    assert (model.weight[0] != 0).all()
