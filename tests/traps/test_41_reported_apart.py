"""Trap 41: a reported loss that contains the penalty."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from penalize import L2
from penalize.torch import regularize


def test_data_loss_and_penalty_are_reported_apart() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    x, y = torch.randn(8, 4), torch.randn(8, 2)
    plan = regularize(model, L2(3.0))
    data = nn.functional.mse_loss(model(x), y)
    naive = data + plan.penalty()
    assert naive.item() > 1.5 * data.item()  # looks like a worse model

    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    plan.attach(optimizer)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        return loss

    penalty = plan.breakdown()
    reported = optimizer.step(closure)
    assert reported.item() == data.item()
    assert penalty == {"weight": pytest.approx((naive - data).item(), rel=1e-5)}
