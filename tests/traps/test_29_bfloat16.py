"""Trap 29: small decoupled steps on bfloat16 weights are rounded away."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam

from penalize import L1, L2, RoundedAwayWarning
from penalize.torch import regularize


def test_naive_a_thousand_decays_move_nothing() -> None:
    w = torch.randn(100, dtype=torch.bfloat16)
    before = w.clone()
    for _ in range(1000):
        w.mul_(1 - 1e-3 * 1e-2)
    assert torch.equal(w, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("regularizer", [L2(5e-3), L1(1e-4), L1(1e-4) + L2(1e-3)], ids=repr)
def test_warned_with_the_way_out(dtype: torch.dtype, regularizer: L2) -> None:
    model = nn.Linear(10, 10).to(dtype)
    optimizer = Adam(model.parameters(), lr=1e-3)
    with pytest.warns(RoundedAwayWarning, match="'weight'.*Keep the weights in float32") as caught:
        regularize(model, regularizer).attach(optimizer, mode="decoupled")
    assert caught[0].filename == __file__


@pytest.mark.parametrize("case", ["float32", "strong", "float32 under autocast", "warm-up"])
def test_not_warned_where_it_acts(case: str) -> None:
    dtype = torch.float32 if "float32" in case else torch.bfloat16
    model = nn.Linear(10, 10).to(dtype)
    optimizer = SGD(model.parameters(), lr=0.1)
    if case == "warm-up":
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: float(step))
        assert optimizer.param_groups[0]["lr"] == 0
    strength = 1e-5 if "float32" in case else 0.5
    with warnings.catch_warnings(), torch.autocast("cpu", enabled="autocast" in case):
        warnings.simplefilter("error")
        regularize(model, L2(strength)).attach(optimizer, mode="decoupled")
    if dtype is torch.bfloat16:
        before = model.weight.detach().clone()
        optimizer.param_groups[0]["lr"] = 0.1
        optimizer.step()
        assert (model.weight != before).all()
