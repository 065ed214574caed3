"""Trap 31: Adam with an L2 and AdamW share the word weight decay, and are two algorithms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch import Tensor, nn

import penalize.jax
from penalize import L2
from penalize.torch import regularize

WD, LR, STEPS = 0.1, 0.01, 50
Adam, AdamW = torch.optim.Adam, torch.optim.AdamW


def trained(
    make: Callable[..., Any],
    mode: str | None = None,
    *,
    dtype: torch.dtype = torch.float64,
    loss_term: bool = False,
    **options: Any,
) -> Tensor:
    """The weight after some steps: with a plan in this mode, or with what the options say."""
    torch.manual_seed(0)
    model = nn.Linear(5, 3, bias=False, dtype=dtype)
    x, y = torch.randn(20, 5, dtype=dtype), torch.randn(20, 3, dtype=dtype)
    x[:, 0] *= 10  # large gradients, which Adam divides by, and its coupled decay with them
    optimizer = make(model.parameters(), lr=LR, **options)
    plan = regularize(model, L2.from_weight_decay(WD)) if mode or loss_term else None
    if plan is not None and mode:
        plan.attach(optimizer, mode=mode)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        (loss + plan.penalty() if plan is not None and loss_term else loss).backward()
        optimizer.step()
    return model.weight.detach()


def test_one_word_is_two_algorithms() -> None:
    naive = trained(Adam, weight_decay=WD), trained(AdamW, weight_decay=WD)
    assert (naive[0] - naive[1]).abs().max() > 0.01


@pytest.mark.parametrize("foreach", [False, True])
def test_gradient_is_adams(foreach: bool) -> None:
    theirs = trained(Adam, weight_decay=WD, foreach=foreach)
    ours = trained(Adam, "gradient", foreach=foreach)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    torch.testing.assert_close(trained(Adam, loss_term=True), theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_decoupled_is_adamw_bit_for_bit(dtype: torch.dtype, foreach: bool) -> None:
    theirs = trained(AdamW, weight_decay=WD, dtype=dtype, foreach=foreach)
    ours = trained(Adam, "decoupled", dtype=dtype, foreach=foreach)
    assert torch.equal(ours, theirs)


def test_in_optax() -> None:
    """Its ``adamw`` multiplies the decay by the learning rate, as PyTorch's does."""
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (20, 5), jnp.float64).at[:, 0].mul(10)
    y = jax.random.normal(keys[1], (20, 3), jnp.float64)
    start = {"w": jax.random.normal(keys[2], (5, 3), jnp.float64)}
    plan = penalize.jax.regularize(start, L2.from_weight_decay(WD))

    def trained(tx: Any) -> Any:
        def step(carry: Any, _: Any) -> Any:
            params, state = carry
            slopes = jax.grad(lambda p: ((x @ p["w"] - y) ** 2).mean())(params)
            updates, state = tx.update(slopes, state, params)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (start, tx.init(start)), length=STEPS)
        return params["w"]

    coupled = trained(optax.chain(optax.add_decayed_weights(WD), optax.adam(LR)))
    decoupled = trained(optax.adamw(LR, weight_decay=WD))
    assert np.abs(coupled - decoupled).max() > 0.01  # naive
    gradient = trained(optax.chain(plan.gradient(), optax.adam(LR)))
    np.testing.assert_allclose(gradient, coupled, rtol=0, atol=1e-12)
    ours = trained(optax.chain(optax.adam(LR), plan.decoupled(LR)))
    np.testing.assert_allclose(ours, decoupled, rtol=0, atol=1e-12)
