"""Adaptive proximal steps: nothing moves at a minimiser, nothing is erased before it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from penalize import L1, L2, GroupLasso, Regularizer
from penalize.jax import regularize
from penalize.schedules import warmup
from penalize.steps import SLACK

LR = 1e-3
Make = Callable[[], optax.GradientTransformation]
ADAPTIVE: dict[str, Make] = {
    "adam": lambda: optax.adam(LR),
    "nadam": lambda: optax.nadam(LR),
    "adamax": lambda: optax.adamax(LR),
    "adagrad": lambda: optax.adagrad(LR, initial_accumulator_value=0.0),
    "rmsprop": lambda: optax.rmsprop(LR),
}


@pytest.mark.parametrize("name", ADAPTIVE)
@pytest.mark.parametrize(
    "regularizer",
    [L1(1e-5), L2(1e-4), L1(1e-6) + L2(1e-5), GroupLasso(1e-5, groups=0)],
    ids=repr,
)
def test_a_weight_that_the_data_has_not_reached_is_not_erased(
    name: str, regularizer: Regularizer
) -> None:
    """Its denominator is eps: unbounded, the first step would set it to zero."""
    assert L1(1e-5).prox(jnp.asarray(0.5), LR / 1e-8) == 0  # naive
    params = {"w": jnp.full((2, 3), 0.5)}
    tx = optax.chain(ADAPTIVE[name](), regularize(params, regularizer).proximal(LR))
    gradients = {"w": jnp.zeros((2, 3)).at[0].set(1.0)}
    updates, _ = tx.update(gradients, tx.init(params), params)
    moved = -float(updates["w"][1].min())
    # The first step in learning rates, by the formulas: rmsprop's average begins at 0.1·g².
    own = {"nadam": 0.9 * 0.1 / (1 - 0.9**2) + 1, "rmsprop": 10**0.5}.get(name, 1.0)
    assert 0 < moved <= 1.0001 * SLACK * own * LR


SLOW: dict[str, Make] = {
    "sgd": lambda: optax.sgd(LR),
    "adam": lambda: optax.adam(LR, b2=0.9999),
    "amsgrad": lambda: optax.amsgrad(LR, b2=0.9999),
    "nadam": lambda: optax.nadam(LR, b2=0.9999),
    "adamax": lambda: optax.adamax(LR),
    "adagrad": lambda: optax.adagrad(LR, initial_accumulator_value=0.0),
    "rmsprop": lambda: optax.rmsprop(LR, decay=0.9999),
    "rmsprop, corrected": lambda: optax.rmsprop(LR, decay=0.9999, bias_correction=True),
    "rmsprop, begun": lambda: optax.rmsprop(LR, decay=0.9999, initial_scale=1.0),
    "scaled first": lambda: optax.chain(optax.scale(1.0), optax.adam(LR)),
}


@pytest.mark.parametrize("make", SLOW.values(), ids=SLOW)
@pytest.mark.parametrize("strength", [0.3, 30.0])
def test_at_a_stationary_point_nothing_moves_from_the_first_step_on(
    make: Make, strength: float
) -> None:
    """The data pulls by −λ, the penalty by λ: update and prox cancel, the bound does not act.

    A second moment with a long memory is near zero at first, and has to be corrected for that.
    """
    params = {"w": jnp.ones((1, 1))}
    tx = optax.chain(make(), regularize(params, L1(strength)).proximal(LR))
    state = tx.init(params)
    for _ in range(12):
        updates, state = tx.update({"w": jnp.full((1, 1), -strength)}, state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(params["w"], 1.0, rtol=0, atol=1e-9 * strength)


@pytest.mark.parametrize("lr", [LR, optax.constant_schedule(LR)], ids=["number", "schedule"])
def test_groups_in_float32_where_numbers_are_float64(lr: Any) -> None:
    """As under JAX_ENABLE_X64: the step is not wider than what it moves."""
    params = {"w": jnp.ones((4, 3), jnp.float32)}
    plan = regularize(params, GroupLasso(0.1, groups=0) * warmup(10))
    tx = optax.chain(optax.adam(lr), plan.proximal(lr))
    update = jax.jit(tx.update)
    updates, state = update(params, tx.init(params), params)
    assert updates["w"].dtype == jnp.float32
    np.testing.assert_allclose(updates["w"], -LR, rtol=1e-4)
    updates, _ = update(params, state, params)  # λ/10·√3/√3 in each row, over Adam's 1
    np.testing.assert_allclose(updates["w"], -LR - LR * 0.01, rtol=1e-4)
