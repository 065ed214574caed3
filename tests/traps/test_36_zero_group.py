"""Trap 36: the norm of a group of zeros has no gradient."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
import pytest
import torch
from torch import nn

import penalize.jax
from penalize import GroupLasso
from penalize.torch import regularize


@pytest.mark.parametrize("mode", ["loss", "gradient", "decoupled", "proximal"])
def test_finite_and_zero(mode: str) -> None:
    naive = torch.zeros(3, requires_grad=True)
    naive.pow(2).sum().sqrt().backward()
    assert naive.grad is not None
    assert naive.grad.isnan().all()

    model = nn.Linear(4, 3)
    with torch.no_grad():
        model.weight[1] = 0.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plan = regularize(model, GroupLasso(0.1, groups="outputs"))
    optimizer.zero_grad()
    if mode == "loss":
        plan.penalty().backward()
    else:
        plan.attach(optimizer, mode=mode)
    optimizer.step()
    assert model.weight.isfinite().all()
    assert (model.weight[1] == 0).all()
    assert (model.weight[0] != 0).all()


@pytest.mark.parametrize("mode", ["loss", "gradient", "decoupled", "proximal"])
def test_in_jax(mode: str) -> None:
    assert jnp.isnan(jax.grad(jnp.linalg.norm)(jnp.zeros(3))).all()  # naive
    params = {"w": jnp.ones((4, 3)).at[:, 1].set(0.0)}
    plan = penalize.jax.regularize(params, GroupLasso(0.1, groups="outputs"))
    tx = {
        "loss": optax.sgd(0.1),
        "gradient": optax.chain(plan.gradient(), optax.sgd(0.1)),
        "decoupled": optax.chain(optax.sgd(0.1), plan.decoupled(0.1)),
        "proximal": optax.chain(optax.sgd(0.1), plan.proximal(0.1)),
    }[mode]
    zeros = jax.tree.map(jnp.zeros_like, params)
    slopes = jax.grad(plan.penalty)(params) if mode == "loss" else zeros
    updates, _ = tx.update(slopes, tx.init(params), params)
    w = optax.apply_updates(params, updates)["w"]
    assert (w[:, 1] == 0).all()
    assert ((w[:, 0] < 1) & (w[:, 0] > 0)).all()
