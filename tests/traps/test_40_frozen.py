"""Trap 40: freezing, and unfreezing later."""

from __future__ import annotations

import jax.numpy as jnp
import optax
import torch
from torch import nn

import penalize.jax
from penalize import L2
from penalize.torch import regularize


def test_rules_follow_and_frozen_ones_are_out_of_the_value() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    stale = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]  # naive
    plan = regularize(model, L2(1.0))
    first, second = (model[i].weight.pow(2).sum() for i in (0, 1))
    model[0].requires_grad_(False)
    naive = torch.stack([p.pow(2).sum() for p in stale]).sum()
    torch.testing.assert_close(naive, first + second)  # still with the frozen one
    torch.testing.assert_close(plan.penalty(), second)
    assert "skipped: frozen (L2(1.0) when trainable)" in str(plan)
    model[0].requires_grad_(True)
    torch.testing.assert_close(plan.penalty(), first + second)
    assert "skipped" not in str(plan)


def test_in_jax_a_mask_leaves_them_out() -> None:
    """Frozen parameters are None in a partition, and masked nodes in optax; a sum sees neither."""
    params = {"body": {"w": jnp.ones((2, 2))}, "head": {"w": jnp.ones((2, 2))}}
    plan = penalize.jax.regularize(params, L2(1.0))
    trained = {"body": {"w": None}, "head": params["head"]}
    assert plan.penalty(params) == 8.0
    assert plan.penalty(trained) == plan.penalty({**params, "body": None}) == 4.0
    optimizer = optax.masked(plan.gradient(), {"body": False, "head": True})
    zeros = {name: {"w": jnp.zeros((2, 2))} for name in params}
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    assert not updates["body"]["w"].any()
    assert (updates["head"]["w"] == 2.0).all()
