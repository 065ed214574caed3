"""Keras variables on each of Keras' backends: opened to the array that they hold."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Keras has one backend per process.
PROGRAM = """
import numpy as np, keras
from cases import CASES
from penalize import L1

assert keras.backend.backend() == {backend!r}
for case in CASES:
    w = np.random.default_rng(0).normal(size=case.shape)
    variable = keras.Variable(w, dtype="float64")
    value = keras.ops.convert_to_numpy(case.regularizer(variable))
    np.testing.assert_allclose(value, case.reference(w), rtol=1e-12)
    if case.regularizer.differentiable:
        gradient = keras.ops.convert_to_numpy(case.regularizer.gradient(variable))
        np.testing.assert_allclose(gradient, case.regularizer.gradient(w), rtol=1e-12, atol=1e-13)
    if case.has_prox:
        prox = keras.ops.convert_to_numpy(case.regularizer.prox(variable, 0.3))
        np.testing.assert_allclose(prox, case.regularizer.prox(w, 0.3), rtol=1e-12, atol=1e-13)

layer = keras.layers.Dense(3, kernel_regularizer=L1(0.5))
layer.build((None, 2))
kernel = keras.ops.convert_to_numpy(layer.kernel)
np.testing.assert_allclose(
    keras.ops.convert_to_numpy(layer.losses[0]), 0.5 * np.abs(kernel).sum(), rtol=1e-6
)

# Within a layer of mixed precision, too, the variable is what is penalized, not its half copy.
class Penalized(keras.layers.Dense):
    def call(self, x):
        assert "float16" in str(keras.ops.convert_to_tensor(self.kernel).dtype)
        self.add_loss(L1(1e-4)(self.kernel))
        return super().call(x)

layer = Penalized(3, dtype="mixed_float16")
layer(np.ones((4, 2)))
kernel = keras.ops.convert_to_numpy(layer.kernel)
np.testing.assert_allclose(
    keras.ops.convert_to_numpy(layer.losses[0]), 1e-4 * np.abs(kernel).sum(), rtol=1e-6
)

# What tf.contrib had works there too, differentiably, by the framework of the variable.
from penalize.tensorflow import contrib

model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(
    3, use_bias=False, kernel_regularizer=contrib.layers.l1_l2_regularizer(0.1, 0.3))])
model.compile(keras.optimizers.SGD(0.5), loss=lambda y, out: 0.0 * keras.ops.sum(out, axis=-1))
(before,) = model.get_weights()
model.fit(np.ones((4, 2)), np.ones((4, 3)), verbose=0)
np.testing.assert_allclose(
    model.get_weights()[0], before - 0.5 * (0.1 * np.sign(before) + 0.3 * before), rtol=1e-5)

from penalize import ModelError
from penalize.tensorflow import regularize

for given, kind in ((model, "model"), (model.trainable_variables, "variable")):
    try:
        plan = regularize(given, L1(0.1))
    except ModelError as error:
        assert str(error).startswith(f"This Keras {{kind}} is one of {backend}; plan"), error
        assert {backend!r} != "tensorflow"
    else:
        assert {backend!r} == "tensorflow"
print("ok", len(CASES))
"""


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_a_variable_is_the_array_that_it_holds(backend: str) -> None:
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "JAX_ENABLE_X64": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(backend=backend)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ok")
