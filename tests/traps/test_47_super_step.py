"""Trap 47: a subclass that calls ``super().step()`` fires the step hooks twice."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from penalize import L2
from penalize.torch import regularize


class Mine(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


def test_acts_once() -> None:
    torch.optim.SGD(nn.Linear(1, 1).parameters())  # torch hooks a class with its first instance
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    optimizer = Mine(model.parameters(), lr=0.5)
    fired: list[int] = []
    optimizer.register_step_pre_hook(lambda *_: fired.append(1))
    regularize(model, L2(0.1)).attach(optimizer)
    optimizer.step()
    assert len(fired) == 2  # naive
    assert float(model.weight.detach()) == torch.tensor(0.9).item()
