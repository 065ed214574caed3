"""The averages of ``mode="halfspace"`` in files: which ones are taken, and from where."""

from __future__ import annotations

import tempfile
from typing import Any

import keras
import numpy as np
from halfspace import PENALTY, linear, planned, steps
from keras import layers, optimizers
from reference import raises

from penalize import L1
from penalize.keras import regularize


def check_going_on_with_an_optimizer_that_is_wrapped() -> None:
    """As ``compile`` does under ``mixed_float16``: it saves what the inner one has, too."""
    model = planned(linear(optimizers.LossScaleOptimizer(optimizers.SGD(0.05, momentum=0.9))))
    steps(model, range(5))
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/model.keras"
        model.save(path)
        loaded = planned(keras.models.load_model(path))
        loaded.load_weights(path)
    np.testing.assert_array_equal(steps(loaded, range(5, 20)), steps(model, range(5, 20)))


def check_a_file_with_other_averages_or_without() -> None:
    def two(rules: Any, average: float = 0.9) -> keras.Model:
        square = [layers.Dense(6, use_bias=False, name=name) for name in ("a", "b")]
        model = keras.Sequential([keras.Input((6,)), *square])
        model.compile(optimizers.SGD(0.05), "mse")
        return planned(model, rules, average)

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/model.keras"
        two({"a": L1(0.1)}).save(path)
        for other, part in (
            (two({"a": L1(0.1)}, 0.5), "it has average=0.9, and here it is 0.5"),
            (two({"b": L1(0.1)}), "its averages are of other weights than those that are"),
        ):
            raises(ValueError, part, lambda m=other: m.load_weights(path))
        model = linear(optimizers.SGD(0.05))
        plan = regularize(model, PENALTY, mode="halfspace", average=0.9)
        steps(model, range(2))
        (averages,) = model.optimizer.penalize_averages._averages()
        assert array(averages.mean).any()
        plan.detach()
        assert not hasattr(model.optimizer, "penalize_averages")
        model.save(path)  # as one that had no plan
        regularize(model, PENALTY, mode="halfspace", average=0.9)
        steps(model, range(1))
        model.load_weights(path)
        (averages,) = model.optimizer.penalize_averages._averages()
        assert not array(averages.mean).any()
        assert not array(averages.numbers).any()


def array(variable: Any) -> np.ndarray:
    return keras.ops.convert_to_numpy(variable)
