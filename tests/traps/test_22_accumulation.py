"""Trap 22: K accumulated micro-batches."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from penalize import L1, L2
from penalize.torch import regularize

K = 4


@pytest.mark.parametrize("mode", ["gradient", "decoupled", "proximal"])
def test_equals_one_full_batch_step(mode: str) -> None:
    torch.manual_seed(0)
    model = nn.Linear(5, 3).double()
    full, accumulated, naive = (copy.deepcopy(model) for _ in range(3))
    x, y = torch.randn(8 * K, 5).double(), torch.randn(8 * K, 3).double()
    micro = list(zip(x.chunk(K), y.chunk(K), strict=True))
    regularizer = L1(0.1) + L2(0.2)

    def optimizer_of(m: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9)

    first, second, third = map(optimizer_of, (full, accumulated, naive))
    regularize(full, regularizer).attach(first, mode=mode)
    regularize(accumulated, regularizer).attach(second, mode=mode)
    by_hand = regularize(naive, regularizer)
    for _ in range(5):
        for optimizer in (first, second, third):
            optimizer.zero_grad()
        nn.functional.mse_loss(full(x), y).backward()
        for a, b in micro:
            (nn.functional.mse_loss(accumulated(a), b) / K).backward()
            (nn.functional.mse_loss(naive(a), b) / K + by_hand.penalty()).backward()
        for optimizer in (first, second, third):
            optimizer.step()
    torch.testing.assert_close(accumulated.weight, full.weight)
    assert not torch.allclose(naive.weight, full.weight, rtol=0.1)  # K times too strong
