"""``PenalizeCallback`` of Keras: the plan in ``fit``, and its numbers in the logs."""

from __future__ import annotations

import tempfile
from typing import Any

import keras
import numpy as np
import pytest
from fitting import X, Y, network, same, weights
from keras import layers, optimizers

import penalize
from penalize import L1, L2, ModeError, ModelError, kernels, warmup
from penalize.integrations.keras import PenalizeCallback
from penalize.keras import regularize

RULES = {kernels: L2(0.05), "first": L1(0.02)}


def fit(model: keras.Model, *callbacks: Any, epochs: int = 1) -> dict[str, Any]:
    arguments = {"batch_size": 16, "shuffle": False, "verbose": 0, "epochs": epochs}
    history: dict[str, Any] = model.fit(X, Y, callbacks=list(callbacks), **arguments).history
    return history


def by_hand(mode: str, steps: int, *, accumulate: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Two kernels that are added up, by gradient steps in NumPy, each of so many batches.

    The first has 0.02 Σ|w|, in mode "proximal" 0.6 Σ|w| · t/12 at step t; the second 0.05 Σw².
    """
    first, second = start()
    x, y, rate = X.astype("float64"), Y.astype("float64"), 0.1
    for step in range(steps):
        batches = [number % 3 for number in range(accumulate * step, accumulate * (step + 1))]
        rows = np.concatenate([np.arange(16 * batch, 16 * batch + 16) for batch in batches])
        residual = x[rows] @ first + x[rows] @ second - y[rows]
        slope = 2 * x[rows].T @ residual / residual.size
        if mode == "loss":
            first = first - rate * (slope + 0.02 * np.sign(first))
            second = second - rate * (slope + 2 * 0.05 * second)
        else:
            first, second = first - rate * slope, second - rate * slope
            shrunk = np.maximum(np.abs(first) - rate * 0.6 * step / 12, 0)
            first, second = np.sign(first) * shrunk, second / (1 + 2 * rate * 0.05)
    return first, second


def start() -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [0.2 * rng.normal(size=(6, 2)) for _ in range(2)]


def linear(optimizer: Any = None, dtype: str = "float32") -> keras.Model:
    inputs = keras.Input((6,))
    how: Any = {"use_bias": False, "dtype": dtype}
    first, second = (layers.Dense(2, name=name, **how) for name in ("first", "second"))
    model = keras.Model(inputs, layers.Add(dtype=dtype)([first(inputs), second(inputs)]))
    model.compile(optimizer or optimizers.SGD(0.1), "mse")
    model.set_weights(start())
    return model


def check_steps_are_those_by_hand() -> None:
    model, later = linear(), []
    callback = PenalizeCallback(RULES)
    seen = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: later.append({**logs}))
    history = fit(model, callback, seen, epochs=4)
    expected = by_hand("loss", 12)
    same(weights(model), list(expected))
    keys = {"penalty", "penalties/first", "penalties/kernels", "zeros"}
    assert history.keys() == {"loss", *keys}
    assert callback.history == history
    assert callback.plan is not None
    now = callback.plan.breakdown()
    assert history["penalty"][-1] == sum(now.values()) == later[-1]["penalty"]
    assert history["penalties/first"][-1] == now["first.kernel"]
    assert now["first.kernel"] == pytest.approx(0.02 * abs(expected[0]).sum(), 1e-6)
    assert penalize.log(callback.plan) == {key: history[key][-1] for key in keys}
    assert "rule kernels (callback.py:" in str(callback.plan)


class Killed(Exception):
    pass


class Kill(keras.callbacks.Callback):  # type: ignore[misc]
    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == 2:
            raise Killed


def check_a_run_that_was_stopped_goes_on() -> None:
    """By Keras' own means, at the step of the schedule that it had come to."""
    rules = {**RULES, "first": L1(0.6) * warmup(12)}
    with tempfile.TemporaryDirectory() as folder:
        back = keras.callbacks.BackupAndRestore(folder)
        with pytest.raises(Killed):
            fit(linear(), PenalizeCallback(rules, "proximal"), back, Kill(), epochs=4)
        model, callback = linear(), PenalizeCallback(rules, "proximal")
        fit(model, callback, keras.callbacks.BackupAndRestore(folder), epochs=4)
    expected = by_hand("proximal", 12)
    same(weights(model), list(expected))
    zeros = float(np.mean([w == 0 for w in expected]))
    assert zeros > 0
    assert callback.history["zeros"][-1] == pytest.approx(zeros)
    assert len(callback.history["zeros"]) == 2


def check_halfspace_within_fit() -> None:
    """Which sets what it remembers on the optimizer, when the model has been traced already."""
    ours, theirs = network(), network()
    regularize(theirs, {kernels: L1(0.3)}, mode="halfspace", average=0.9)
    fit(theirs, epochs=2)
    fit(ours, PenalizeCallback({kernels: L1(0.3)}, "halfspace", average=0.9), epochs=2)
    same(weights(ours), weights(theirs), atol=0)


def check_accumulated_gradients() -> None:
    """A step for every two batches has the penalty once."""
    accumulating = optimizers.SGD(0.1, gradient_accumulation_steps=2)
    model = linear(accumulating)
    fit(model, PenalizeCallback(RULES), epochs=4)
    same(weights(model), list(by_hand("loss", 6, accumulate=2)))
    with pytest.raises(ModeError, match="gradient_accumulation_steps=2"):
        fit(linear(accumulating), PenalizeCallback(RULES, "proximal"))


def check_a_scaled_loss_of_half_precision() -> None:
    scaled = optimizers.LossScaleOptimizer(optimizers.SGD(0.1), initial_scale=8.0)
    model = linear(scaled, "mixed_float16")
    fit(model, PenalizeCallback(RULES), epochs=4)
    assert model.layers[1].compute_dtype == "float16"
    same(weights(model), list(by_hand("loss", 12)), atol=1e-3)


def check_a_model_that_is_not_built() -> None:
    """On TensorFlow ``fit`` builds it within the first step, on the others before it begins."""

    class Own(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(2, name="dense")

        def call(self, x: Any) -> Any:
            return self.dense(x)

    model = Own()
    model.compile(optimizers.SGD(0.1), "mse")
    if keras.backend.backend() == "tensorflow":
        with pytest.raises(ModelError, match="build or call it first"):
            fit(model, PenalizeCallback({kernels: L2(0.05)}))
        model(X)
    callback = PenalizeCallback({kernels: L2(0.05)})
    fit(model, callback)
    assert callback.plan is not None
    assert list(callback.plan.breakdown()) == ["dense.kernel"]
