"""Trap 10: attached in a loop, a lambda sees the last layer; all the others are not penalized."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest

from penalize import L2, named
from penalize.keras import regularize

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def after_one_step(attach: Callable[[keras.Model], object]) -> list[float]:
    """The first element of each kernel, from 1, where the data has no gradient."""
    dense = [keras.layers.Dense(2, use_bias=False, name=f"d{i}") for i in range(3)]
    model = keras.Sequential([keras.Input((2,)), *dense])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.set_weights([np.ones((2, 2))] * 3)
    attach(model)
    model.train_on_batch(np.zeros((1, 2)), np.zeros((1, 2)))
    return [float(keras.ops.convert_to_numpy(layer.kernel)[0, 0]) for layer in dense]


def naive(model: keras.Model) -> None:
    for i, layer in enumerate(model.layers):
        layer.kernel.regularizer = lambda w: 0.1 * (i + 1) * keras.ops.sum(layer.kernel**2)  # noqa: B023


def test_each_parameter_gets_its_own() -> None:
    own = [1 - 0.1 * 2 * 0.1 * (i + 1) for i in range(3)]
    assert after_one_step(naive)[:2] == [1.0, 1.0]
    rules = [(named(f"d{i}"), L2(0.1 * (i + 1))) for i in range(3)]
    np.testing.assert_allclose(after_one_step(lambda m: regularize(m, rules)), own, rtol=1e-6)
