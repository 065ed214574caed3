"""Trap 17: AdamW decays by 0.01 unless told otherwise; an L2 beside it penalizes twice."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from penalize import L2, AppliedTwiceError
from penalize.torch import regularize


def test_both_are_named_with_the_two_ways_out() -> None:
    model = nn.Linear(3, 2)
    naive = torch.optim.AdamW(model.parameters())
    assert naive.param_groups[0]["weight_decay"] == 0.01  # nobody asked for it
    plan = regularize(model, L2(0.005))
    with pytest.raises(AppliedTwiceError) as caught:
        plan.attach(naive, mode="decoupled")
    for part in ("L2(0.005) of the plan", "weight_decay=0.01 of AdamW", "weight_decay=0", "rules"):
        assert part in str(caught.value)
    plan.attach(torch.optim.AdamW(model.parameters(), weight_decay=0.0), mode="decoupled")


def test_through_the_loss_too() -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    plan = regularize(model, L2(0.005))
    plan.penalty().backward()
    with pytest.raises(AppliedTwiceError, match=r"weight_decay=0\.01 of AdamW"):
        optimizer.step()
