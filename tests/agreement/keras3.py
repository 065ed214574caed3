"""On Keras, on the backend of this process: a compiled model, and ``fit``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import keras
import numpy as np
from keras import layers, ops
from keras.src.backend.common import dtypes

from agreement.problem import CLASSES, EPSILON, RATE, START, STEPS, TOKENS, Run
from penalize.keras import regularize


@contextmanager
def in_float64() -> Iterator[None]:
    """Everything, in a process that may have other models.

    On JAX and PyTorch Keras rounds to float32 inside some layers, also in a float64 model: its data
    loss alone is 1e-7 apart. Without that, what is left to see is the penalty.
    """
    usual, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        with patch.dict(dtypes.BIT64_TO_BIT32_DTYPE, float64="float64"):
            yield
    finally:
        keras.config.set_floatx(usual)
        keras.config.set_dtype_policy(policy)


def make() -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            keras.Sequential(
                [
                    layers.Embedding(11, 4, name="tokens"),
                    layers.Conv1D(5, 3, activation="sigmoid", name="conv"),
                ],
                name="encoder",
            ),
            layers.LayerNormalization(epsilon=EPSILON, name="norm"),
            layers.Flatten(),
            layers.Dense(7, activation="sigmoid", name="hidden"),
            layers.Dense(3, name="head"),
        ]
    )
    for name, variable in as_named(model).items():
        variable.assign(START[name])
    model.compile(
        keras.optimizers.SGD(RATE), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return model


def as_named(model: keras.Model) -> dict[str, Any]:
    found = {}
    for name in START:
        *path, own = name.split(".")
        layer = model
        for part in path:
            layer = layer.get_layer(part)
        found[name] = getattr(layer, own)
    return found


@in_float64()
def run(rules: Any) -> Run:
    model = make()
    plan = regularize(model, rules)
    variables = as_named(model)
    start = float(ops.convert_to_numpy(plan.penalty()))
    steps: list[dict[str, np.ndarray]] = []

    def record(epoch: int, logs: Any) -> None:
        steps.append({n: ops.convert_to_numpy(v).copy() for n, v in variables.items()})

    # The batch is all of the data, so an epoch is a step.
    model.fit(
        TOKENS,
        CLASSES,
        batch_size=len(TOKENS),
        epochs=STEPS,
        shuffle=False,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=record)],
    )
    return Run(start, {row.name: repr(row.regularizer) for row in plan.rows}, steps)
