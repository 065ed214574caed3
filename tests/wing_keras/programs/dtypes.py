"""Penalties of other dtypes than that of the loss: float64 layers, two dtypes in one model."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from fitting import weights
from keras import layers, optimizers, regularizers

from penalize import L1, L2, kernels
from penalize.keras import regularize

X, Y = np.zeros((8, 6)), np.zeros((8, 1))  # the gradients are those of the penalties
RATE = 0.125  # in float32, as Keras keeps it, too


def of(first: str, second: str, regularizer: Any = None) -> keras.Model:
    arguments = {"use_bias": False, "kernel_regularizer": regularizer}
    model = keras.Sequential(
        [
            keras.Input((6,), dtype=first),
            layers.Dense(4, dtype=first, name="first", **arguments),
            layers.Dense(1, dtype=second, name="second", **arguments),
        ]
    )
    model.compile(optimizers.SGD(RATE), "mse")
    rng = np.random.default_rng(3)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    return model


def check_a_penalty_is_added_in_the_dtype_of_the_loss() -> None:
    """TensorFlow adds up one dtype only. The gradient stays that of float64."""
    for second in ("float64", "float32"):
        with pytest.raises(TypeError, match="float64"):  # Keras by itself
            of("float64", second, regularizers.L2(0.1)).fit(X, Y, verbose=0)
        model = of("float64", second)
        v, w = (each.astype("float64") for each in weights(model))
        plan = regularize(model, {kernels: L2(0.05), "first": L1(0.3)})
        penalty = 0.3 * abs(v).sum() + 0.05 * (w**2).sum()
        assert model.evaluate(X, Y, verbose=0) == pytest.approx(penalty, rel=1e-6)
        history = model.fit(X, Y, batch_size=4, verbose=0).history  # two steps
        for _ in range(2):
            v, w = v - RATE * 0.3 * np.sign(v), w - RATE * 2 * 0.05 * w
        first, last = weights(model)
        np.testing.assert_allclose(first, v, rtol=1e-14)
        np.testing.assert_allclose(last, w, rtol=1e-14 if second == "float64" else 1e-6)
        assert 0 < history["loss"][0] < penalty
        assert sum(plan.breakdown().values()) == pytest.approx(
            0.3 * abs(v).sum() + 0.05 * (w**2).sum(), rel=1e-6
        )


def check_a_loop_of_ones_own_has_the_dtype_of_the_weights() -> None:
    model = of("float64", "float64")
    regularize(model, {kernels: L2(0.05)})
    v, w = weights(model)
    penalty = sum(float(keras.ops.convert_to_numpy(loss)) for loss in model.losses)
    assert {keras.backend.standardize_dtype(loss.dtype) for loss in model.losses} == {"float64"}
    assert penalty == pytest.approx(0.05 * ((v**2).sum() + (w**2).sum()), rel=1e-14)
