"""Trap 27: a GradScaler scales gradients, and skips steps that overflowed; a fused optimizer does
both itself, after the hooks have run.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer

from penalize import L1, L2
from penalize.torch import regularize

FUSED: dict[str, Callable[[Any, bool], Optimizer]] = {
    "SGD": lambda p, fused: SGD(p, lr=0.1, momentum=0.9, fused=fused),
    "Adam": lambda p, fused: Adam(p, lr=0.01, fused=fused),
    "AdamW": lambda p, fused: AdamW(p, lr=0.01, weight_decay=0.0, fused=fused),
    "Adagrad": lambda p, fused: Adagrad(p, lr=0.1, fused=fused),
}
each_optimizer = pytest.mark.parametrize("make", FUSED.values(), ids=FUSED)
each_kind = pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
each_mode = pytest.mark.parametrize("mode", ["gradient", "decoupled", "proximal"])
REGULARIZER = L1(0.01) + L2(0.2)


def network() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(6, 4)


def data() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(8, 6), torch.randn(8, 4)


def backward(model: nn.Module, scaler: torch.amp.GradScaler | None) -> None:
    x, y = data()
    loss = nn.functional.mse_loss(model(x), y)
    (loss if scaler is None else scaler.scale(loss)).backward()


@each_optimizer
@each_kind
@each_mode
@pytest.mark.parametrize("unscale", [False, True], ids=["", "unscale_"])
def test_the_same_weights_with_a_scaler_and_without(
    make: Any, fused: bool, mode: str, unscale: bool
) -> None:
    plain, scaled = network(), network()
    expected, optimizer = make(plain.parameters(), fused), make(scaled.parameters(), fused)
    regularize(plain, REGULARIZER).attach(expected, mode=mode)
    regularize(scaled, REGULARIZER).attach(optimizer, mode=mode)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
    for _ in range(5):
        expected.zero_grad()
        backward(plain, None)
        expected.step()
        optimizer.zero_grad()
        backward(scaled, scaler)
        if unscale:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        assert not hasattr(optimizer, "found_inf")
        scaler.update()
    torch.testing.assert_close(scaled.weight, plain.weight, rtol=1e-5, atol=1e-6)


@each_optimizer
@each_kind
@each_mode
def test_a_step_that_overflowed_changes_nothing(make: Any, fused: bool, mode: str) -> None:
    model = network()
    optimizer = make(model.parameters(), fused)
    regularize(model, REGULARIZER).attach(optimizer, mode=mode)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for overflows in (True, False, True):
        optimizer.zero_grad()
        backward(model, scaler)
        if overflows:
            assert model.weight.grad is not None
            model.weight.grad[0, 0] = torch.inf
        before = copy.deepcopy((model.state_dict(), optimizer.state_dict()["state"]))
        scaler.step(optimizer)
        scaler.update()
        same = torch.equal(model.weight, before[0]["weight"])
        assert same == overflows
        if overflows and not fused:  # a fused one makes its state, and keeps it at step 0
            assert str(optimizer.state_dict()["state"]) == str(before[1])


@pytest.mark.parametrize("what", ["gradient", "decay"])
def test_naive_hooks_on_a_fused_optimizer(what: str) -> None:
    """∇Ω added to a scaled gradient is divided away; a decay beside a skipped step is not."""
    strength, lr = 0.5, 0.1
    model = network()
    optimizer = SGD(model.parameters(), lr=lr, fused=True)

    def naive(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        with torch.no_grad():
            if what == "gradient":
                assert model.weight.grad is not None
                model.weight.grad.add_(2 * strength * model.weight)
            else:
                model.weight.mul_(1 - lr * 2 * strength)

    optimizer.register_step_pre_hook(naive)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before = model.weight.detach().clone()
    scaler.scale(model(torch.zeros(1, 6)).sum()).backward()  # the weight's gradient is 0
    assert model.weight.grad is not None
    if what == "decay":
        model.weight.grad[0, 0] = torch.inf
    scaler.step(optimizer)
    if what == "gradient":
        torch.testing.assert_close(model.weight.detach(), before, rtol=1e-3, atol=0)  # lost
    else:
        assert not torch.equal(model.weight, before)  # moved, though the step was skipped
