"""Trap 13: after ``enable_lora`` the penalty of a kernel moves to its factors, without a word."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from penalize import L2, kernels
from penalize.keras import regularize

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def network(regularizer: object = None) -> keras.Model:
    layer = keras.layers.Dense(3, name="dense", kernel_regularizer=regularizer)
    model = keras.Sequential([keras.Input((4,)), layer])
    model.set_weights([np.full((4, 3), 2.0, np.float32), np.zeros(3, np.float32)])
    return model


def squares(variable: keras.Variable) -> float:
    return float((keras.ops.convert_to_numpy(variable) ** 2).sum())


def test_the_plan_says_what_is_penalized() -> None:
    naive = network(keras.regularizers.L2(1.0))
    layer = naive.layers[0]
    layer.enable_lora(2)
    moved = sum(float(keras.ops.convert_to_numpy(loss)) for loss in naive.losses)
    factors = squares(layer.lora_kernel_a) + squares(layer.lora_kernel_b)
    np.testing.assert_allclose(moved, factors, rtol=1e-6)
    assert squares(layer._kernel) == 48.0
    assert moved < 13.0  # what the factors' initializers can give at most is 12

    model = network()
    plan = regularize(model, {kernels: L2(1.0)})
    model.layers[0].enable_lora(2)
    kernel, _, a, b = sorted(plan.rows, key=lambda row: row.name != "dense.kernel")
    assert (kernel.name, kernel.regularizer) == ("dense.kernel", None)
    assert "LoRA trains lora_kernel_a and lora_kernel_b instead" in kernel.note
    for row in (a, b):
        assert row.regularizer == L2(1.0)
        assert row.declared_at == "Keras, after the plan was made"
        assert "acts on the factor, not on the kernel" in row.note
    assert set(plan.breakdown()) == {"dense.lora_kernel_a", "dense.lora_kernel_b"}


def test_a_plan_made_afterwards_leaves_the_factors_alone() -> None:
    model = network()
    model.layers[0].enable_lora(2)
    plan = regularize(model, {kernels: L2(1.0)})
    assert plan.breakdown() == {}
    assert model.losses == []
    plan.detach()
    regularize(model, {"dense.lora_kernel_b": L2(1.0)})  # unless they are named
    assert len(model.losses) == 1
