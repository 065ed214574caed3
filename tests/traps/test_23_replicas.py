"""Trap 23: N replicas under DistributedDataParallel, in a loop that reduces by itself."""

from __future__ import annotations

import copy

import pytest
import torch
from ranks import on_ranks
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from penalize import L2
from penalize.torch import regularize


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(8, 5, generator=generator, dtype=torch.float64)
    return x, torch.randn(8, 3, generator=generator, dtype=torch.float64)


def gradient_of_one_process(model: nn.Module) -> Tensor:
    model = copy.deepcopy(model)
    x, y = batch()
    penalty = 0.3 * model.weight.pow(2).sum()
    (nn.functional.mse_loss(model(x), y) + penalty).backward()
    return model.weight.grad


@pytest.mark.parametrize("door", ["loss", "gradient"])
@on_ranks(2)
def test_equals_one_process(door: str) -> None:
    model = nn.Linear(5, 3).double()
    expected = gradient_of_one_process(model)
    x, y = (part.chunk(2)[distributed.get_rank()] for part in batch())

    naive = copy.deepcopy(model)  # the penalty is not a mean over samples, and must not be summed
    (nn.functional.mse_loss(naive(x), y) / 2 + 0.3 * naive.weight.pow(2).sum()).backward()
    distributed.all_reduce(naive.weight.grad)
    twice = expected + 0.6 * model.weight
    torch.testing.assert_close(naive.weight.grad, twice.detach())

    before = model.weight.detach().clone()
    parallel = DistributedDataParallel(model)
    plan = regularize(parallel, L2(0.3))
    optimizer = torch.optim.SGD(parallel.parameters(), lr=1.0)
    if door == "gradient":
        plan.attach(optimizer)
    loss = nn.functional.mse_loss(parallel(x), y)
    (loss + plan.penalty() if door == "loss" else loss).backward()
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), before - expected)
