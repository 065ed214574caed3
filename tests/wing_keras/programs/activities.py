"""Regularizers on the outputs of layers, which Keras applies itself."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers
from saving import saved_and_loaded

from penalize import L1, L2

X = np.linspace(-1.0, 1.0, 24, dtype="float32").reshape(6, 4)


def losses(model: keras.Model) -> list[float]:
    model(X)
    return [float(keras.ops.convert_to_numpy(loss)) for loss in model.losses]


def check_an_activity_is_divided_by_the_batch_and_saved() -> None:
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, activity_regularizer=L1(0.01)),
            layers.Dense(2, activity_regularizer=L1(0.01) + L2(0.1)),
        ]
    )
    first, second = (keras.ops.convert_to_numpy(part(X)) for part in (model.layers[0], model))
    expected = [
        0.01 * np.abs(first).sum() / 6,
        (0.01 * np.abs(second).sum() + 0.1 * (second**2).sum()) / 6,
    ]
    np.testing.assert_allclose(losses(model), expected, rtol=1e-5)
    loaded = saved_and_loaded(model)
    assert loaded.layers[0].activity_regularizer == L1(0.01)
    assert loaded.layers[1].activity_regularizer == L1(0.01) + L2(0.1)
    np.testing.assert_allclose(losses(loaded), expected, rtol=1e-5)


def check_an_activity_trains_as_that_of_keras() -> None:
    trained = []
    for regularizer in (L1(0.01), keras.regularizers.L1(0.01)):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [keras.Input((4,)), layers.Dense(3, activity_regularizer=regularizer)]
        )
        model.compile("sgd", "mse")
        model.fit(X, X[:, :3], batch_size=3, epochs=2, verbose=0, shuffle=False)
        trained.append(keras.ops.convert_to_numpy(model.layers[0].kernel))
    np.testing.assert_allclose(*trained, rtol=1e-5)
