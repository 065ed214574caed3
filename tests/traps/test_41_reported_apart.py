"""Trap 41: a reported loss that contains the penalty."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
import pytest
import tensorflow as tf
import torch
from torch import nn

import penalize.jax
import penalize.keras
import penalize.tensorflow
from penalize import L2
from penalize.torch import regularize


def test_data_loss_and_penalty_are_reported_apart() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    x, y = torch.randn(8, 4), torch.randn(8, 2)
    plan = regularize(model, L2(3.0))
    data = nn.functional.mse_loss(model(x), y)
    naive = data + plan.penalty()
    assert naive.item() > 1.5 * data.item()  # looks like a worse model

    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    plan.attach(optimizer)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        return loss

    penalty = plan.breakdown()
    reported = optimizer.step(closure)
    assert reported.item() == data.item()
    assert penalty == {"weight": pytest.approx((naive - data).item(), rel=1e-5)}


def test_in_keras() -> None:
    """``fit`` and ``evaluate`` report the sum; what of it is penalty, the plan says."""
    x, y = np.ones((4, 3), np.float32), np.zeros((4, 2), np.float32)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.set_weights([np.full((3, 2), 0.5, np.float32), np.zeros(2, np.float32)])
    model.compile("sgd", "mse", metrics=["mse"])
    data = model.evaluate(x, y, verbose=0)[0]
    plan = penalize.keras.regularize(model, L2(3.0))
    naive, metric = model.evaluate(x, y, verbose=0)
    assert naive > 1.5 * data
    assert naive - float(plan.penalty()) == pytest.approx(data, rel=1e-5)
    assert naive - sum(plan.breakdown().values()) == pytest.approx(data, rel=1e-5)
    assert metric == pytest.approx(data, rel=1e-6)


def test_in_a_loop_of_tensorflow() -> None:
    w = tf.Variable(np.ones((3, 2)), name="w")
    plan = penalize.tensorflow.regularize([w], L2(3.0))
    with tf.GradientTape() as tape:
        data, penalty = tf.reduce_sum(w), plan.penalty()
        loss = data + penalty
    np.testing.assert_allclose(tape.gradient(loss, w), 1 + 6 * np.ones((3, 2)))
    assert (float(data), float(penalty)) == (6.0, 18.0)
    assert plan.breakdown() == {"w": 18.0}


def test_in_jax() -> None:
    params = {"w": jnp.ones((3, 2))}
    plan = penalize.jax.regularize(params, L2(3.0))
    tx = optax.chain(plan.gradient(), optax.sgd(0.5))
    data, slopes = jax.value_and_grad(lambda p: p["w"].sum())(params)
    naive = float(data + plan.penalty(params))
    updates, _ = tx.update(slopes, tx.init(params), params)
    assert (naive, float(data), plan.breakdown(params)) == (24.0, 6.0, {"w": 18.0})
    np.testing.assert_allclose(updates["w"], -0.5 * (1 + 6))
