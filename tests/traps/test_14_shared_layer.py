"""Trap 14: a shared layer, or several forward passes, penalized several times."""

from __future__ import annotations

import torch
from torch import nn

from penalize import L2
from penalize.torch import regularize


class Recurrent(nn.Module):
    """Applies one layer three times, and holds it under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(4, 4)
        self.again = self.step

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            x = self.again(self.step(x))
        return x


def test_counted_once() -> None:
    model = Recurrent()
    calls: list[torch.Tensor] = []
    model.step.register_forward_hook(lambda m, *_: calls.append(m.weight.pow(2).sum()))
    plan = regularize(model, L2(1.0))
    model(torch.ones(2, 4))
    once = model.step.weight.pow(2).sum()
    naive_per_name = sum(
        p.pow(2).sum()
        for name, p in model.named_parameters(remove_duplicate=False)
        if name.endswith("weight")
    )
    torch.testing.assert_close(torch.stack(calls).sum(), 6 * once)
    torch.testing.assert_close(naive_per_name, 2 * once)
    torch.testing.assert_close(plan.penalty(), once)
    assert plan.rows[0].name == "step.weight"
    assert plan.rows[0].aliases == ("again.weight",)
