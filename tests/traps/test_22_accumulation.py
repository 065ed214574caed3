"""Trap 22: K accumulated micro-batches."""

from __future__ import annotations

import copy

import jax
import jax.numpy as jnp
import optax
import pytest
import torch
from torch import nn

import penalize.jax
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


@pytest.mark.parametrize("inside", [True, False])
def test_in_optax(inside: bool) -> None:
    """``MultiSteps`` that sums, around a chain with the penalty or a loss with it."""
    params = {"w": jnp.ones((2, 2))}
    plan = penalize.jax.regularize(params, L2(0.5))

    def loss(p: dict[str, jax.Array]) -> jax.Array:
        return 0.0 * p["w"].sum() + (0.0 if inside else plan.penalty(p))

    chain = optax.chain(plan.gradient(), optax.sgd(0.1)) if inside else optax.sgd(0.1)
    tx = optax.MultiSteps(chain, K, use_grad_mean=False)
    state, new = tx.init(params), params
    for _ in range(K):
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        new = optax.apply_updates(new, updates)
    times = 1 if inside else K  # naive
    assert float(new["w"][0, 0]) == pytest.approx(1 - 0.1 * times)
