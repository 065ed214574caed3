"""Trap 30: gradient clipping clips a penalty in the loss away with the rest."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from penalize import L2
from penalize.torch import regularize

MAX_NORM = 1.0
STRENGTH = 10.0


def clipped_gradient(clip: str) -> tuple[Tensor, Tensor, Tensor]:
    """What the optimizer is given, the data's gradient and the penalty's."""
    torch.manual_seed(0)
    model = nn.Linear(5, 4, bias=False).double()
    optimizer = SGD(model.parameters(), lr=0.1)
    plan = regularize(model, L2(STRENGTH))
    penalty = 2 * STRENGTH * model.weight.detach()
    x = torch.randn(8, 5).double()
    (data,) = torch.autograd.grad(model(x).square().mean(), [model.weight])
    if clip != "loss":
        plan.attach(optimizer, clip=clip)
    given: list[Tensor] = []

    def note(optimizer: Any, args: Any, kwargs: Any) -> None:
        assert model.weight.grad is not None
        given.append(model.weight.grad.clone())

    optimizer.register_step_pre_hook(note)
    loss = model(x).square().mean()
    (loss + plan.penalty() if clip == "loss" else loss).backward()
    nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
    optimizer.step()
    assert penalty.norm() > 10 * MAX_NORM
    return given[0], data, penalty


def test_naive_a_loss_term_is_clipped_away() -> None:
    given, data, penalty = clipped_gradient("loss")
    torch.testing.assert_close(given.norm(), torch.tensor(MAX_NORM).double())
    assert (given - data).norm() < 0.2 * penalty.norm()


def test_by_default_the_penalty_is_not_clipped() -> None:
    given, data, penalty = clipped_gradient("without")
    torch.testing.assert_close(given, data * min(1, MAX_NORM / data.norm().item()) + penalty)


def test_on_request_it_is_clipped_as_a_loss_term_is() -> None:
    given, data, penalty = clipped_gradient("with")
    together = data + penalty
    torch.testing.assert_close(given, together * MAX_NORM / together.norm())
    torch.testing.assert_close(given, clipped_gradient("loss")[0])


@pytest.mark.parametrize("clip", ["with", "without"])
def test_where_nothing_is_clipped_both_are_the_same(clip: str) -> None:
    torch.manual_seed(0)
    model = nn.Linear(5, 4, bias=False)
    optimizer = SGD(model.parameters(), lr=1.0)
    regularize(model, L2(0.25)).attach(optimizer, clip=clip)
    before = model.weight.detach().clone()
    model(torch.zeros(1, 5)).sum().backward()
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), 0.5 * before)
