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
    nn.init.ones_(model.weight)
    model.weight.grad = torch.zeros_like(model.weight)
    with torch.no_grad():
        model.weight.mul_(1 - 0.001 * 0.01)  # the L2 of the plan, by hand
    naive.step()
    twice = torch.full_like(model.weight, (1 - 0.001 * 0.01) ** 2)  # nobody asked for the second
    torch.testing.assert_close(model.weight.detach(), twice, rtol=0, atol=1e-7)
    assert (model.weight < 1 - 1.5 * 0.001 * 0.01).all()
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


def test_in_a_closure_before_anything_has_moved() -> None:
    model = nn.Linear(3, 2)
    before = model.weight.detach().clone()
    optimizer = torch.optim.AdamW(model.parameters())
    plan = regularize(model, L2(0.005))

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(torch.ones(1, 3)).sum() + plan.penalty()
        loss.backward()
        return loss

    with pytest.raises(AppliedTwiceError, match=r"weight_decay=0\.01 of AdamW"):
        optimizer.step(closure)
    assert torch.equal(model.weight, before)
