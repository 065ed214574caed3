"""Anchors, schedules and constraints on Keras models."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from penalize import L1, L2, ModeError, NoGradientError, NonNegative, toward, warmup
from penalize.keras import regularize


def nothing(y: Any, out: Any) -> Any:
    """A loss without a gradient, so that penalties alone move the weights."""
    return 0.0 * ops.sum(out, axis=-1)


def model_of(optimizer: Any, units: int = 2) -> Any:
    model = keras.Sequential([keras.Input((3,)), layers.Dense(units, use_bias=False, name="dense")])
    model.compile(optimizer, loss=nothing)
    return model


def kernel(model: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(model.layers[0].kernel), np.float64)


def number(value: Any) -> float:
    return float(ops.convert_to_numpy(value))


def step(model: Any, epochs: int = 1) -> None:
    model.fit(np.ones((4, 3)), np.ones((4, 2)), epochs=epochs, verbose=0)


def check_an_anchor_at_the_start_is_saved_with_the_model() -> None:
    model = model_of(keras.optimizers.SGD(0.5))
    start = kernel(model)
    plan = regularize(model, toward("start", L2(0.2)))
    assert list(plan.breakdown().values()) == [0.0]
    model.layers[0].kernel.assign(start + 1.0)
    step(model)
    np.testing.assert_allclose(kernel(model), start + 0.8, rtol=1e-5)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        loaded = keras.models.load_model(path, compile=False)
    loaded.compile(keras.optimizers.SGD(0.5), loss=nothing)
    np.testing.assert_allclose(number(loaded.losses[0]), 0.2 * 6 * 0.64, rtol=1e-5)
    step(loaded)
    np.testing.assert_allclose(kernel(loaded), start + 0.64, rtol=1e-5)


def check_a_schedule_in_the_loss_follows_the_optimizer() -> None:
    model = model_of(keras.optimizers.SGD(0.5))
    if keras.backend.backend() == "jax":
        with pytest.raises(ModeError, match="the strength would stand still"):
            regularize(model, L2(0.2) * warmup(4))
        return
    plan = regularize(model, L2(0.2) * warmup(4))
    w = kernel(model)
    step(model, 6)
    for t in range(6):
        w = w - 0.5 * 2 * 0.2 * min(t / 4, 1) * w
    np.testing.assert_allclose(kernel(model), w, rtol=1e-5)
    np.testing.assert_allclose(number(plan.penalty()), 0.2 * (w**2).sum(), rtol=1e-5)
    np.testing.assert_allclose(number(plan.penalty(at=2)), 0.1 * (w**2).sum(), rtol=1e-5)


def check_a_schedule_of_proximal_steps_follows_the_optimizer() -> None:
    model = model_of(keras.optimizers.SGD(0.5))
    regularize(model, L1(0.1) * warmup(4), mode="proximal")
    w = kernel(model)
    step(model, 6)
    for t in range(6):
        shrink = 0.5 * 0.1 * min(t / 4, 1)
        w = np.sign(w) * np.maximum(np.abs(w) - shrink, 0)
    np.testing.assert_allclose(kernel(model), w, rtol=1e-5, atol=1e-7)


def check_a_constraint_acts_by_its_projection_alone() -> None:
    model = model_of(keras.optimizers.Adam(0.01))
    with pytest.raises(NoGradientError, match='mode="proximal"'):
        regularize(model, NonNegative())
    regularize(model, NonNegative(), mode="proximal")
    assert (kernel(model) < 0).any()
    step(model)
    assert (kernel(model) >= 0).all()
