"""Trap 11: a loop of one's own forgets ``model.losses``."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import penalize.keras
from penalize import L2
from penalize.tensorflow import audit, regularize


class Model(tf.Module):
    """One kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = tf.Variable(np.array([[1.0, -2.0]]), name="kernel")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return x @ self.kernel


def test_naive_and_with_the_plan() -> None:
    model = Model()
    plan = regularize(model, L2(0.1))
    x = tf.constant([[3.0], [1.0]], tf.float64)

    def naive() -> tf.Tensor:
        return tf.reduce_mean(model(x))

    def ours() -> tf.Tensor:
        return tf.reduce_mean(model(x)) + plan.penalty()

    with tf.GradientTape(persistent=True) as tape:
        without, with_plan = naive(), ours()
    difference = tape.gradient(with_plan, model.kernel) - tape.gradient(without, model.kernel)
    np.testing.assert_allclose(difference, 0.2 * model.kernel.numpy(), rtol=1e-6)
    assert [row.factor for row in audit(naive, plan)] == [0.0]
    assert [row.verdict for row in audit(naive, plan)] == ["never applied"]
    assert [row.factor for row in audit(tf.function(ours), plan)] == [pytest.approx(1.0)]


def test_in_keras() -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    plan = penalize.keras.regularize(model, L2(0.1))
    x = np.ones((4, 3), np.float32)

    def naive() -> tf.Tensor:
        return tf.reduce_mean(model(x))

    def ours() -> tf.Tensor:
        return tf.reduce_mean(model(x)) + plan.penalty()

    (kernel, _) = model.trainable_variables
    with tf.GradientTape(persistent=True) as tape:
        without, with_plan = naive(), ours()
    difference = tape.gradient(with_plan, kernel.value) - tape.gradient(without, kernel.value)
    np.testing.assert_allclose(difference, 0.2 * kernel.numpy(), rtol=1e-4, atol=1e-6)
    assert [row.factor for row in audit(naive, plan)] == [0.0]
    assert [row.factor for row in audit(ours, plan)] == [1.0]
