"""What a proximal plan leaves in the loss: zeros with a gradient, which reach every variable."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
from keras import layers, optimizers
from proximal import FEATURES, STRENGTH, TARGETS, number

from penalize import L1, L2
from penalize.keras import regularize


def check_what_the_data_does_not_reach_agrees() -> list[list[float]]:
    """Compared between the backends by the test, which take such a gradient for None or zeros."""

    class Half(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.used = layers.Dense(2, name="used")
            self.idle = layers.Dense(2, name="idle", kernel_regularizer="l1")

        def build(self, shape: Any) -> None:
            self.used.build(shape)
            self.idle.build(shape)
            self.built = True

        def call(self, x: Any) -> Any:
            return self.used(x)

    model = Half()
    model.build((None, 8))
    rng = np.random.default_rng(2)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    model.compile(optimizers.SGD(0.1), "mse")
    regularize(model, L1(0.5), mode="proximal")
    expected = number(model.idle.kernel)
    for _ in range(3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras says that the bias has no gradient
            model.train_on_batch(FEATURES, TARGETS.repeat(2, axis=1))
        expected = L1(0.01).prox(expected, 0.1)  # what is declared, since that is stronger
    np.testing.assert_allclose(number(model.idle.kernel), expected, atol=1e-6)
    return [number(w).ravel().tolist() for w in model.trainable_variables]


def check_the_penalty_is_a_number_to_look_at() -> None:
    plans: list[Any] = []

    class Adding(keras.Sequential):
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            return super().compute_loss(*args, **kwargs) + sum(p.penalty() for p in plans)

    def after_a_step(kind: Any) -> np.ndarray:
        model = kind([keras.Input((8,)), layers.Dense(1, use_bias=False)])
        model.compile(optimizers.SGD(0.1), "mse")
        model.set_weights([np.full((8, 1), 0.3, "float32")])
        plans[:] = [regularize(model, L2(STRENGTH), mode="proximal")]
        model.train_on_batch(FEATURES, TARGETS)
        return number(model.layers[0].kernel)

    np.testing.assert_array_equal(after_a_step(Adding), after_a_step(keras.Sequential))


def check_in_every_precision() -> None:
    for dtype in ("float16", "float64"):
        layer = layers.Dense(2, use_bias=False, dtype=dtype)
        model = keras.Sequential([keras.Input((3,), dtype=dtype), layer])
        model.compile(optimizers.SGD(0.1), "mse", auto_scale_loss=False)
        model.set_weights([np.full((3, 2), 6e4)])  # their sum is no number in half precision
        regularize(model, L1(0.5), mode="proximal")
        loss = model.train_on_batch(np.zeros((4, 3), dtype), np.zeros((4, 2), dtype))
        assert number(loss) == 0
        np.testing.assert_allclose(number(layer.kernel), 6e4 - 0.05, rtol=1e-3)
