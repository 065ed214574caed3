"""Trap 34: L1 by gradient never reaches zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
import torch
from torch import nn

import penalize.jax
from penalize import L1
from penalize.torch import regularize

FEATURES, TRUE, STRENGTH = 50, 5, 0.1


def fit(make: Callable[[Any], torch.optim.Optimizer], mode: str | None) -> list[torch.Tensor]:
    """Weights after training, and after some more of it."""
    torch.manual_seed(0)
    x = torch.randn(200, FEATURES)
    y = x[:, :TRUE].sum(1, keepdim=True) + 0.1 * torch.randn(200, 1)
    model = nn.Linear(FEATURES, 1, bias=False)
    optimizer = make(model.parameters())
    if mode is not None:
        regularize(model, L1(STRENGTH)).attach(optimizer, mode=mode)
    found = []
    for step in range(600):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        if mode is None:
            loss = loss + STRENGTH * model.weight.abs().sum()
        loss.backward()
        optimizer.step()
        if step in (400, 599):
            found.append(model.weight.detach()[0].clone())
    return found


@pytest.mark.parametrize(
    "make",
    [lambda p: torch.optim.SGD(p, lr=0.05), lambda p: torch.optim.Adam(p, lr=0.02)],
    ids=["SGD", "Adam"],
)
def test_proximal_mode_gives_exact_zeros_that_stay(make: Any) -> None:
    for naive in (None, "gradient"):
        assert not (fit(make, naive)[-1] == 0).any()
    early, late = fit(make, "proximal")
    assert (late[TRUE:] == 0).sum() == FEATURES - TRUE
    assert (late[:TRUE] > 0.5).all()
    assert (late[early == 0] == 0).all()


def test_on_mini_batches_the_right_zeros_stay() -> None:
    """The proximal step has others in each step, the gradient none."""
    strength, steps, share = 0.4, 600, {}
    torch.manual_seed(0)
    x = torch.randn(200, 10)
    y = x[:, :TRUE].sum(1, keepdim=True) + torch.randn(200, 1)
    batches = torch.randint(0, 200, (steps, 32))
    for mode in ("gradient", "proximal", "halfspace"):
        model = nn.Linear(10, 1, bias=False)
        nn.init.zeros_(model.weight)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        average = 0.99 if mode == "halfspace" else None
        regularize(model, L1(strength)).attach(optimizer, mode=mode, average=average)
        falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, steps)
        right = 0
        for step, i in enumerate(batches):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x[i]), y[i]).backward()
            optimizer.step()
            falling.step()
            zero = model.weight.detach()[0] == 0
            right += step >= steps - 100 and bool(zero[TRUE:].all() and not zero[:TRUE].any())
        share[mode] = right / 100
    assert share["gradient"] == 0
    assert share["proximal"] < 0.5
    assert share["halfspace"] > 0.95


@pytest.mark.parametrize(("make", "rate"), [(optax.sgd, 0.05), (optax.adam, 0.02)])
def test_in_optax(make: Any, rate: float) -> None:
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], (200, FEATURES))
    y = x[:, :TRUE].sum(1, keepdims=True) + 0.1 * jax.random.normal(keys[1], (200, 1))
    params = {"w": jnp.ones((FEATURES, 1))}
    plan = penalize.jax.regularize(params, L1(STRENGTH))

    def trained(tx: Any) -> list[Any]:
        """After 400 steps, and after 200 more."""

        def step(carry: Any, _: Any) -> Any:
            params, state = carry
            slopes = jax.grad(lambda p: ((x @ p["w"] - y) ** 2).mean())(params)
            updates, state = tx.update(slopes, state, params)
            return (optax.apply_updates(params, updates), state), params["w"][:, 0]

        _, path = jax.lax.scan(step, (params, tx.init(params)), length=600)
        return [path[400], path[599]]

    naive = trained(optax.chain(plan.gradient(), make(rate)))
    assert not (naive[-1] == 0).any()
    early, late = trained(optax.chain(make(rate), plan.proximal(rate)))
    assert (late[TRUE:] == 0).sum() == FEATURES - TRUE
    assert (late[:TRUE] > 0.5).all()
    assert (late[early == 0] == 0).all()
