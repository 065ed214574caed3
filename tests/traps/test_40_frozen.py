"""Trap 40: freezing, and unfreezing later."""

from __future__ import annotations

import torch
from torch import nn

from penalize import L2
from penalize.torch import regularize


def test_rules_follow_and_frozen_ones_are_out_of_the_value() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    stale = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]  # naive
    plan = regularize(model, L2(1.0))
    first, second = (model[i].weight.pow(2).sum() for i in (0, 1))
    model[0].requires_grad_(False)
    naive = torch.stack([p.pow(2).sum() for p in stale]).sum()
    torch.testing.assert_close(naive, first + second)  # still with the frozen one
    torch.testing.assert_close(plan.penalty(), second)
    assert "skipped: frozen (L2(1.0) when trainable)" in str(plan)
    model[0].requires_grad_(True)
    torch.testing.assert_close(plan.penalty(), first + second)
    assert "skipped" not in str(plan)
