"""Trap 43: a strength that changes, under ``jax.jit``."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from penalize import L2
from penalize.jax import regularize

PARAMS = {"w": jnp.ones((2, 2))}
PLAN = regularize(PARAMS, L2(1.0))
STEPS = 5


def strength_at(count: Any) -> Any:
    return 0.01 * count


def expected() -> float:
    """lr = 1: w ← w − 2·s·w."""
    w = 1.0
    for count in range(STEPS):
        w -= 2 * strength_at(count) * w
    return w


def test_naive_frozen_in() -> None:
    """A Python number that the traced function reads is a constant of the program."""
    strength = 0.0

    @jax.jit
    def step(w: Any) -> Any:
        return w - jax.grad(lambda w: strength * (w**2).sum())(w)

    w = PARAMS["w"]
    for count in range(STEPS):
        strength = strength_at(count)
        w = step(w)
    assert float(w[0, 0]) == 1.0


def test_naive_recompiled() -> None:
    traces = 0

    def step(w: Any, strength: float) -> Any:
        nonlocal traces
        traces += 1
        return w - jax.grad(lambda w: strength * (w**2).sum())(w)

    w, jitted = PARAMS["w"], jax.jit(step, static_argnums=1)
    for count in range(STEPS):
        w = jitted(w, strength_at(count))
    assert float(w[0, 0]) == pytest.approx(expected())
    assert traces == STEPS


@pytest.mark.parametrize(
    "tx",
    [
        optax.chain(PLAN.gradient(strength_at), optax.sgd(1.0)),
        optax.chain(optax.sgd(1.0), PLAN.decoupled(1.0, strength_at)),
        optax.chain(optax.inject_hyperparams(PLAN.gradient)(strength=strength_at), optax.sgd(1.0)),
    ],
    ids=["gradient", "decoupled", "injected"],
)
def test_followed_without_compiling_again(tx: Any) -> None:
    traces = 0

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        nonlocal traces
        traces += 1
        updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(STEPS):
        params, state = step(params, state)
    assert float(params["w"][0, 0]) == pytest.approx(expected())
    assert traces == 1


def test_in_a_loss_it_is_an_argument() -> None:
    @jax.jit
    def step(params: Any, strength: Any) -> Any:
        slopes = jax.grad(lambda p: strength * PLAN.penalty(p))(params)
        return optax.apply_updates(params, jax.tree.map(jnp.negative, slopes))

    params = PARAMS
    for count in range(STEPS):
        params = step(params, strength_at(count))
    assert float(params["w"][0, 0]) == pytest.approx(expected())
    assert step._cache_size() == 1
