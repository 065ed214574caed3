"""Trap 37: the derivative of ``jnp.abs`` at 0 is 1, so that zeros are pushed away."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from penalize import L1
from penalize.jax import regularize

PARAMS = {"w": jnp.array([[0.0, -2.0, 3.0]])}
PLAN = regularize(PARAMS, L1(0.5))


def step(loss: Any, *transforms: Any) -> list[float]:
    tx = optax.chain(*transforms, optax.sgd(1.0))
    updates, _ = tx.update(jax.grad(loss)(PARAMS), tx.init(PARAMS), PARAMS)
    return np.asarray(optax.apply_updates(PARAMS, updates)["w"][0]).tolist()


def test_naive() -> None:
    assert step(lambda p: 0.5 * jnp.abs(p["w"]).sum()) == [-0.5, -1.5, 2.5]


def test_zeros_stay() -> None:
    assert step(PLAN.penalty) == [0.0, -1.5, 2.5]
    assert step(lambda p: 0.0 * p["w"].sum(), PLAN.gradient()) == [0.0, -1.5, 2.5]


@pytest.mark.parametrize("derivative", [jax.grad, jax.jacfwd, jax.jacrev])
def test_forward_and_reverse(derivative: Any) -> None:
    np.testing.assert_array_equal(derivative(PLAN.penalty)(PARAMS)["w"], [[0.0, -0.5, 0.5]])
