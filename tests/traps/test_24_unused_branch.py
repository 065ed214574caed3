"""Trap 24: DistributedDataParallel that finds unused parameters, and a penalty on one of them."""

from __future__ import annotations

import pytest
import torch
from ranks import on_ranks
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from penalize import L2
from penalize.torch import regularize


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(3, 2)
        self.unused = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


@pytest.mark.parametrize("mode", ["gradient", "decoupled", "proximal"])
@on_ranks(2)
def test_an_attachment_reaches_the_unused_branch(mode: str) -> None:
    x = torch.randn(4, 3)

    naive = DistributedDataParallel(Branches(), find_unused_parameters=True)
    penalty = sum(layer.weight.pow(2).sum() for layer in naive.module.children())
    with pytest.raises(RuntimeError, match="to mark a variable ready only once"):
        (naive(x).sum() + penalty).backward()

    model = DistributedDataParallel(Branches(), find_unused_parameters=True)
    before = model.module.unused.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plan = regularize(model, L2(0.5))
    plan.attach(optimizer, mode=mode)
    model(x).sum().backward()
    optimizer.step()
    expected = before / 1.1 if mode == "proximal" else before * 0.9
    torch.testing.assert_close(model.module.unused.weight.detach(), expected)
