"""Chains of layers without their dead units: equal outputs, and what stays."""

from __future__ import annotations

import re
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from penalize import CompactError, ModelError, NothingToCutWarning
from penalize.keras import compact

RANDOM = np.random.default_rng(0)
ZERO = "zeros"  # to draw would take JAX a second for each shape
TOLERANCE = 1e-5
"""Of float32, relative; what is proven in float64 where the backend has it is tighter."""


def drawn(model: Any) -> Any:
    for v in model.weights:
        v.assign(RANDOM.uniform(0.5, 1.5, v.shape) * RANDOM.choice([-1, 1], v.shape))
        if "variance" in v.name:
            v.assign(RANDOM.uniform(0.5, 1.5, v.shape))
    return model


def zeros(variable: Any, *where: Any) -> None:
    w = keras.ops.convert_to_numpy(variable).copy()
    for each in where:
        w[each] = 0.0
    variable.assign(w)


def run(model: Any, x: Any) -> Any:
    return keras.ops.convert_to_numpy(model(x, training=False))


def apart(a: Any, b: Any) -> float:
    return float(np.abs(a - b).max() / np.abs(a).max())


def dense(*more: Any, bias: bool = True) -> Any:
    """Where unit 1 is dead, and what is between it and its reader."""
    inputs = keras.Input((4,))
    x = layers.Dense(6, name="first", activation="sigmoid", kernel_initializer=ZERO)(inputs)
    for layer in more:
        x = layer(x)
    model = drawn(
        keras.Model(inputs, layers.Dense(2, name="last", use_bias=bias, kernel_initializer=ZERO)(x))
    )
    zeros(model.get_layer("first").kernel, np.s_[:, 1])
    return model


def check_what_stays_and_why() -> None:
    x = RANDOM.standard_normal((3, 4))
    norm = dense(layers.LayerNormalization(name="norm"))
    with pytest.warns(NothingToCutWarning, match="all 1 dead units of the Functional stay"):
        found = compact(norm, x)
    why = "what 'norm', a LayerNormalization, does with it is not known"
    assert found[0].kept == {why: 1}
    assert apart(run(norm, x), run(found.model, x)) == 0
    plain = dense(layers.PReLU(), bias=False)
    with pytest.warns(NothingToCutWarning):
        assert "'last.kernel' has no bias beside it to hold that" in str(compact(plain, x))
    found = compact(plain, x, biases=True)
    assert found.model.get_layer("last").use_bias
    assert found[0].after == 5
    assert apart(run(plain, x), run(found.model, x)) < TOLERANCE


def check_what_is_refused() -> None:
    x = RANDOM.standard_normal((3, 4))
    inputs = keras.Input((4,))
    half = layers.Dense(4, name="half")
    shared = keras.Model(inputs, half(layers.ReLU()(half(inputs))))
    branch = keras.Model(inputs, layers.Add(name="sum")([half(inputs), inputs]))
    wider = keras.Model(i := keras.Input((5,)), layers.Dense(1)(i))
    first = keras.Sequential(
        [
            keras.Input((4, 3)),
            layers.MaxPooling1D(1, data_format="channels_first", name="d"),
        ]
    )

    class Own(keras.Model):
        def call(self, x: Any) -> Any:
            return x

    for model, said in [
        (shared, "'half' of this Functional is used twice"),
        (branch, "'sum' of this Functional, a Add, has 2 inputs and 1 outputs; compact follows"),
        (keras.Model([inputs], [half(inputs), inputs]), "This Functional has 1 inputs and 2 outp"),
        (wider, "A Functional cannot be called on these inputs ("),
        (first, "'d', a MaxPooling1D, has its channels first"),
        (Own(), "What a Own does stands in its code, which compact does not read; write it as"),
        (keras.Sequential([half]), "This Sequential is not built: its layers have no weights yet"),
        (half, "Compact got a Dense; pass a keras.Model, and then its inputs"),
    ]:  # fmt: skip
        with pytest.raises(ModelError, match=re.escape(said)):
            compact(model, RANDOM.standard_normal((2, 4, 3)) if model is first else x)


def check_what_differs_is_not_returned() -> None:
    """A layer that says it is one of Keras', and is another."""
    with pytest.MonkeyPatch.context() as patched:
        model = dense(layers.ReLU())
        patched.setattr(layers.ReLU, "call", lambda self, x: x - keras.ops.mean(x))
        with pytest.raises(CompactError, match="The compacted Functional would not answer"):
            compact(model, RANDOM.standard_normal((3, 4)))
