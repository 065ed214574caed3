"""Trap 42: a penalty of what has no gradient is added to the loss, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from penalize import L2
from penalize.torch import audit, regularize

NAIVE: dict[str, Callable[[nn.Linear], torch.Tensor]] = {
    ".data": lambda model: model.weight.data.pow(2).sum(),
    "state_dict": lambda model: model.state_dict()["weight"].pow(2).sum(),
}


@pytest.mark.parametrize("naive", NAIVE.values(), ids=NAIVE)
def test_naive_and_audited(naive: Callable[[nn.Linear], torch.Tensor]) -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    x, y = torch.randn(8, 4), torch.randn(8, 2)
    plan = regularize(model, L2(1.0))

    def data() -> torch.Tensor:
        return nn.functional.mse_loss(model(x), y)

    def with_naive() -> torch.Tensor:
        return data() + naive(model)

    (without,) = torch.autograd.grad(data(), model.weight)
    (found,) = torch.autograd.grad(with_naive(), model.weight)
    assert with_naive() > data()
    assert torch.equal(found, without)
    assert [row.factor for row in audit(with_naive, plan)] == [0.0]
    assert [row.factor for row in audit(lambda: data() + plan.penalty(), plan)] == [
        pytest.approx(1.0)
    ]
