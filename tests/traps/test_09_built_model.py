"""Trap 9: a regularizer set on a built, compiled or pretrained Keras model has no effect."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from penalize import L2
from penalize.keras import regularize

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

X, Y = np.zeros((4, 3), "float32"), np.zeros((4, 2), "float32")  # the data has no gradient


def pretrained() -> keras.Model:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, use_bias=False)])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.5), "mse")
    model.set_weights([np.ones((3, 2))])
    model.train_on_batch(X, Y)  # traced
    return model


def kernel(model: keras.Model) -> np.ndarray:
    return keras.ops.convert_to_numpy(model.layers[0].kernel)


def test_in_force_in_the_next_step() -> None:
    naive = pretrained()
    naive.layers[0].kernel_regularizer = keras.regularizers.L2(0.5)
    naive.train_on_batch(X, Y)
    assert naive.losses == []
    np.testing.assert_array_equal(kernel(naive), np.ones((3, 2)))

    model = pretrained()
    iterations = int(model.optimizer.iterations)
    plan = regularize(model, L2(0.5))
    np.testing.assert_array_equal(kernel(model), np.ones((3, 2)))
    assert int(model.optimizer.iterations) == iterations == 1
    model.train_on_batch(X, Y)
    np.testing.assert_allclose(kernel(model), np.full((3, 2), 0.9), rtol=1e-6)

    plan.detach()
    model.train_on_batch(X, Y)  # momentum only: the optimizer's state is that of the step before
    np.testing.assert_allclose(kernel(model), np.full((3, 2), 0.85), rtol=1e-6)
    assert model.losses == []
    assert model.layers[0].kernel_regularizer is None
