"""Keras variables on each backend: opened to the array that they hold."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from cases import KINDS

from penalize import L1, ModelError
from penalize.tensorflow import contrib, regularize

BACKEND = keras.backend.backend()
back = keras.ops.convert_to_numpy


def check_a_variable_is_the_array_that_it_holds() -> None:
    """Which all regularizers open alike: of its array all cases are computed elsewhere."""
    for case in KINDS[::6]:
        r, w = case.regularizer, np.random.default_rng(0).normal(size=case.shape)
        variable = keras.Variable(w, dtype="float64")
        np.testing.assert_allclose(back(r(variable)), case.reference(w), rtol=1e-12)
        if r.differentiable:
            gradient = back(r.gradient(variable))
            np.testing.assert_allclose(gradient, r.gradient(w), rtol=1e-12, atol=1e-13)
        if case.has_prox:
            prox = back(r.prox(variable, 0.3))
            np.testing.assert_allclose(prox, r.prox(w, 0.3), rtol=1e-12, atol=1e-13)


def check_a_layer_has_the_loss() -> None:
    layer = keras.layers.Dense(3, kernel_regularizer=L1(0.5))
    layer.build((None, 2))
    expected = 0.5 * np.abs(back(layer.kernel)).sum()
    np.testing.assert_allclose(back(layer.losses[0]), expected, rtol=1e-6)


class Penalized(keras.layers.Dense):
    """Asks for its penalty within its call, where it sees its kernel in half precision."""

    def call(self, x: Any) -> Any:
        assert "float16" in str(keras.ops.convert_to_tensor(self.kernel).dtype)
        self.add_loss(L1(1e-4)(self.kernel))
        return super().call(x)


def check_mixed_precision_does_not_reach_the_penalty() -> None:
    layer = Penalized(3, dtype="mixed_float16")
    layer(np.ones((4, 2)))
    expected = 1e-4 * np.abs(back(layer.kernel)).sum()
    np.testing.assert_allclose(back(layer.losses[0]), expected, rtol=1e-6)


def _with_a_regularizer_of_contrib() -> keras.Model:
    regularizer = contrib.layers.l1_l2_regularizer(0.1, 0.3)
    dense = keras.layers.Dense(3, use_bias=False, kernel_regularizer=regularizer)
    return keras.Sequential([keras.Input((2,)), dense])


def check_what_contrib_had_works_there_too() -> None:
    """Differentiably, by the framework of the variable."""
    model = _with_a_regularizer_of_contrib()
    model.compile(keras.optimizers.SGD(0.5), loss=lambda y, out: 0.0 * keras.ops.sum(out, axis=-1))
    (before,) = model.get_weights()
    model.fit(np.ones((4, 2)), np.ones((4, 3)), verbose=0)
    expected = before - 0.5 * (0.1 * np.sign(before) + 0.3 * before)
    np.testing.assert_allclose(model.get_weights()[0], expected, rtol=1e-5)


def check_a_plan_of_tensorflow_is_for_its_variables() -> None:
    model = _with_a_regularizer_of_contrib()
    for given, kind in ((model, "model"), (model.trainable_variables, "variable")):
        if BACKEND == "tensorflow":
            regularize(given, L1(0.1))
            continue
        with pytest.raises(ModelError, match=f"^This Keras {kind} is one of {BACKEND}; plan"):
            regularize(given, L1(0.1))
