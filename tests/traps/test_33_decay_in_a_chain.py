"""Trap 33: the same decay before or after ``scale_by_adam`` is another algorithm."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import optax
import pytest

from penalize import L2, OptimizerError
from penalize.jax import regularize

LR, DECAY = 0.1, 0.1
PARAMS = {"w": jnp.ones((1, 1))}
PLAN = regularize(PARAMS, L2.from_weight_decay(DECAY))


def moved(*transforms: Any) -> float:
    """How far one step without a data gradient moves a weight of 1."""
    tx = optax.chain(*transforms)
    zeros = {"w": jnp.zeros((1, 1))}
    return float(tx.update(zeros, tx.init(PARAMS), PARAMS)[0]["w"][0, 0])


def test_naive_one_line_moved_is_another_algorithm() -> None:
    decay, adam, rate = optax.add_decayed_weights(DECAY), optax.scale_by_adam(), optax.scale(-LR)
    assert moved(decay, adam, rate) == pytest.approx(-LR)  # Adam divides it by itself
    assert moved(adam, decay, rate) == pytest.approx(-LR * DECAY)


def test_the_named_transform_says_where_it_stands() -> None:
    assert moved(PLAN.gradient(), optax.adam(LR)) == pytest.approx(-LR)
    assert moved(optax.adam(LR), PLAN.decoupled(LR)) == pytest.approx(-LR * DECAY)
    with pytest.raises(OptimizerError, match=r"stands after scale_by_adam.*put it first"):
        moved(optax.adam(LR), PLAN.gradient())
    with pytest.raises(OptimizerError, match=r"stands before scale_by_adam.*put it last"):
        moved(PLAN.decoupled(LR), optax.adam(LR))
