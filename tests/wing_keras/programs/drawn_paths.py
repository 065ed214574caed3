"""Paths of Keras models that draw at random, where Keras draws by itself."""

from __future__ import annotations

import keras
import numpy as np

from penalize import L1
from penalize.keras import Training, path, regularize

X = np.random.default_rng(0).normal(size=(50, 6)).astype("float32")


def check_what_draws_at_random_begins_anew_in_each_run() -> None:
    layers = [keras.layers.Dropout(0.5), keras.layers.Dense(1, name="out")]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    training, plan = Training(x=X, y=X[:, :1], epochs=1), regularize(model, L1(1.0))
    first, again = (
        path(training, plan, [0.1], None, progress=False).weights("out.kernel") for _ in range(2)
    )
    np.testing.assert_array_equal(first, again)
