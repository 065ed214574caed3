"""Trap 32: one strength, moved between TensorFlow 1, Keras and PyTorch, is three penalties.

All numbers are sums of powers of two, so that every framework computes them exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
import pytest
import tensorflow as tf
import tf_slim
import torch
from torch import nn

import penalize.jax
from penalize import L2
from penalize.keras import from_keras, to_keras
from penalize.tensorflow import regularize as regularize_variables
from penalize.tensorflow import regularized
from penalize.torch import regularize

v1 = tf.compat.v1
STRENGTH = LR = 0.125
X = np.array([[1, 0], [0, 1], [1, 1], [2, -1]], "float32")
Y = np.array([[1], [0], [2], [1]], "float32")
KERNEL = np.array([[1], [-2]], "float32")
BIAS = np.array([2], "float32")

Weights = list[float]
"""The kernel and the bias."""


def in_tensorflow(regularizer: Any = None, plan: L2 | None = None) -> Weights:
    """One step of a TensorFlow 1 graph: the collection in the loss, or a plan in the optimizer."""
    with tf.Graph().as_default(), v1.Session() as session:
        w = v1.get_variable("kernel", initializer=KERNEL, regularizer=regularizer)
        b = v1.get_variable("bias", initializer=BIAS)
        loss = tf.reduce_mean((tf.matmul(X, w) + b - Y) ** 2)
        loss += v1.losses.get_regularization_loss()
        optimizer = v1.train.GradientDescentOptimizer(LR)
        if plan is not None:
            optimizer = regularized(optimizer, plan=regularize_variables([w, b], plan))
        train = optimizer.minimize(loss)
        session.run(v1.global_variables_initializer())
        session.run(train)
        return np.concatenate([v.ravel() for v in session.run([w, b])]).tolist()


def in_keras(regularizer: Any = None, weight_decay: float | None = None) -> Weights:
    """One step of a Keras model, on the backend that is active."""
    layer = keras.layers.Dense(1, kernel_regularizer=regularizer)
    model = keras.Sequential([keras.Input((2,)), layer])
    model.set_weights([KERNEL, BIAS])
    model.compile(keras.optimizers.SGD(LR, weight_decay=weight_decay), "mean_squared_error")
    model.fit(X, Y, batch_size=4, verbose=0)
    return np.concatenate([w.ravel() for w in model.get_weights()]).tolist()


def in_torch(
    plan: L2 | None = None, mode: str = "gradient", decays: Callable[[Any], Any] | None = None
) -> Weights:
    """One step of torch.optim.SGD, with a plan, or with these parameter groups."""
    model = nn.Linear(2, 1)
    model.load_state_dict({"weight": torch.tensor(KERNEL.T), "bias": torch.tensor(BIAS)})
    optimizer = torch.optim.SGD(decays(model) if decays else model.parameters(), lr=LR)
    if plan is not None:
        regularize(model, plan).attach(optimizer, mode=mode)
    nn.functional.mse_loss(model(torch.tensor(X)), torch.tensor(Y)).backward()
    optimizer.step()
    return [*model.weight.detach()[0].tolist(), *model.bias.tolist()]


def in_optax(plan: L2) -> Weights:
    """One step of optax.sgd, behind the plan's gradient."""
    params = {"kernel": jnp.asarray(KERNEL), "bias": jnp.asarray(BIAS)}

    def loss(p: dict[str, jax.Array]) -> jax.Array:
        return jnp.mean((X @ p["kernel"] + p["bias"] - Y) ** 2)

    tx = optax.chain(penalize.jax.regularize(params, plan).gradient(), optax.sgd(LR))
    updates, _ = tx.update(jax.grad(loss)(params), tx.init(params), params)
    new = optax.apply_updates(params, updates)
    return [*new["kernel"][:, 0].tolist(), *new["bias"].tolist()]


def everything(model: nn.Linear) -> list[dict[str, Any]]:
    """``weight_decay=`` as it is usually passed."""
    return [{"params": list(model.parameters()), "weight_decay": STRENGTH}]


def test_naive_one_strength_is_three_models() -> None:
    tensorflow = in_tensorflow(tf_slim.l2_regularizer(STRENGTH))
    of_keras = in_keras(keras.regularizers.L2(STRENGTH))
    pytorch = in_torch(decays=everything)
    plain = in_torch()
    # How far each pulls the weights, as a multiple of lr·strength·w.
    pull = [
        ((np.array(plain) - found) / (LR * STRENGTH * np.array([1, -2, 2]))).tolist()
        for found in (tensorflow, of_keras, pytorch)
    ]
    assert pull == [[1, 1, 0], [2, 2, 0], [1, 1, 1]]


def test_with_the_converters_one_step_is_identical() -> None:
    theirs = in_tensorflow(tf_slim.l2_regularizer(STRENGTH))
    ours = L2.from_half(STRENGTH)
    assert ours == L2.from_weight_decay(STRENGTH) == from_keras(to_keras(ours))
    assert ours.weight_decay == STRENGTH

    def kernel_only(model: nn.Linear) -> list[dict[str, Any]]:
        return [
            {"params": [model.weight], "weight_decay": ours.weight_decay},
            {"params": [model.bias]},
        ]

    steps = {
        "TensorFlow 1, a plan": in_tensorflow(plan=ours),
        "TensorFlow 1, a collection": in_tensorflow(ours),
        "Keras' own": in_keras(to_keras(ours)),
        "ours in Keras": in_keras(ours),
        "PyTorch's own": in_torch(decays=kernel_only),
        "ours in PyTorch": in_torch(ours),
        "ours in optax": in_optax(ours),
    }
    assert steps == dict.fromkeys(steps, theirs)


def test_decoupled_decay_of_keras() -> None:
    """Decay of every optimizer of Keras goes past the gradient, and takes the bias as well."""
    *kernel, bias = in_keras(weight_decay=STRENGTH)
    plain = in_keras()[2]
    assert bias == plain - LR * STRENGTH * 2
    assert in_torch(L2.from_weight_decay(STRENGTH), "decoupled") == [*kernel, plain]


@pytest.mark.parametrize("factor", [0.25, 0.0625])
def test_decay_that_the_learning_rate_does_not_scale(factor: float) -> None:
    """w ← (1 − d)·w before the update, as in tf.contrib.opt.AdamWOptimizer."""
    plain = np.array(in_torch())
    ours = in_torch(L2(factor / (2 * LR)), "decoupled")
    assert ours == (plain - factor * np.array([1, -2, 0])).tolist()
