"""Trap 39: a parameter that got no gradient.

The policy: a penalty does not depend on the data, so it acts on every trainable parameter in every
step, on every route, just as a loss term does by itself.
"""

from __future__ import annotations

import copy

import jax
import jax.numpy as jnp
import optax
import pytest
import torch
from torch import nn

import penalize.jax
from penalize import L2
from penalize.torch import regularize


def shrunk(route: str) -> float:
    """What is left of a weight of 1 that the data never reached, after one step."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    decay = 0.2 if route == "weight_decay" else 0.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, weight_decay=decay)
    assert model.weight.grad is None
    if route == "loss":
        regularize(model, L2(0.1)).penalty().backward()
    elif route != "weight_decay":
        regularize(model, L2(0.1)).attach(optimizer, mode=route)
    optimizer.step()
    return float(model.weight.detach())


def test_the_optimizers_own_decay_skips_it() -> None:
    assert shrunk("weight_decay") == 1.0  # naive: one route decays it, another does not


@pytest.mark.parametrize(
    ("route", "left"),
    [("loss", 0.9), ("gradient", 0.9), ("decoupled", 0.9), ("proximal", 1 / 1.1)],
)
def test_one_policy_on_every_route(route: str, left: float) -> None:
    assert shrunk(route) == pytest.approx(left)


@pytest.mark.parametrize("mode", ["gradient", "decoupled", "proximal"])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_also_under_adam(mode: str, kind: type[torch.optim.Adam]) -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    optimizer = kind(model.parameters(), lr=0.1, weight_decay=0.0)
    regularize(model, L2(0.1)).attach(optimizer, mode=mode)
    by_loss = copy.deepcopy(model)
    other = kind(by_loss.parameters(), lr=0.1, weight_decay=0.0)
    plan = regularize(by_loss, L2(0.1))
    for _ in range(3):
        optimizer.zero_grad()
        optimizer.step()
        other.zero_grad()
        plan.penalty().backward()
        other.step()
    left = float(model.weight.detach())
    if mode == "gradient":
        assert left == float(by_loss.weight.detach())
    elif mode == "decoupled":
        assert left == pytest.approx((1 - 0.1 * 0.2) ** 3)
    else:
        # No gradient ever came, so the bound holds: w ← w / (1 + 10·lr/w), from 1, three times.
        assert left == pytest.approx(1 / 42)


@pytest.mark.parametrize("route", ["loss", "gradient", "decoupled", "proximal"])
def test_in_jax_too(route: str) -> None:
    """There it has a gradient, of zeros, and an update may still be masked away by hand."""
    params = {"used": jnp.ones((1, 1)), "unused": jnp.ones((1, 1))}
    plan = penalize.jax.regularize(params, L2(0.1))
    optimizers = {
        "loss": optax.sgd(0.5),
        "gradient": optax.chain(plan.gradient(), optax.sgd(0.5)),
        "decoupled": optax.chain(optax.sgd(0.5), plan.decoupled(0.5)),
        "proximal": optax.chain(optax.sgd(0.5), plan.proximal(0.5)),
    }
    optimizer = optimizers[route]

    def loss(params: dict[str, jax.Array]) -> jax.Array:
        return params["used"].sum() + (plan.penalty(params) if route == "loss" else 0.0)

    updates, _ = optimizer.update(jax.grad(loss)(params), optimizer.init(params), params)
    expected = 1 / (1 + 2 * 0.5 * 0.1) if route == "proximal" else 1 - 0.5 * 0.2
    left = optax.apply_updates(params, updates)["unused"]
    assert left.item() == pytest.approx(expected)
