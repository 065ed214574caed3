"""Trap 6: a collection is filtered by scope."""

from __future__ import annotations

from typing import Any

import tensorflow
import torch

from penalize import L2
from penalize.tensorflow import audit, regularized
from penalize.torch import tf1

tf = tensorflow.compat.v1


def penalties(v: Any, ones: Any) -> list[Any]:
    """Of the scope ``s``, beside which there is an ``s2``."""
    for scope in ("s", "s2"):
        with v.variable_scope(scope, regularizer=lambda w: 3.0 * w[0]):
            v.get_variable("w", [1], initializer=ones)
    found: list[Any] = v.get_collection(v.GraphKeys.REGULARIZATION_LOSSES, scope="s")
    return found


def test_naive() -> None:
    """TensorFlow takes the scope for a regular expression at the start of the name."""
    with tf.Graph().as_default():
        names = [loss.name.split("/")[0] for loss in penalties(tf, tf.ones_initializer())]
    assert names == ["s", "s2"]


def test_in_the_torch_vocabulary() -> None:
    with tf1.VariableStore():
        (loss,) = penalties(tf1, torch.ones)
        assert loss.item() == 3.0
        assert len(tf1.losses.get_regularization_losses("s2")) == 1
        assert [len(tf1.trainable_variables(scope)) for scope in ("s", "s/", "s2/", None)] == [
            1,
            1,
            1,
            2,
        ]
        assert tf1.losses.get_regularization_loss("s").item() == 3.0
        assert tf1.losses.get_regularization_loss().item() == 6.0


def test_on_tensorflow() -> None:
    with tf.Graph().as_default():
        for name in ("s", "s2"):
            tf.get_variable(f"{name}/w", [2], regularizer=L2(0.1))
        total = tf.losses.get_regularization_loss()
        assert [row.name for row in audit(total, scope="s")] == ["s/w"]
        optimizer = regularized(tf.train.GradientDescentOptimizer(0.1), scope="s")
        loss = optimizer.total_loss(tf.constant(0.0))
        assert [row.factor for row in audit(loss)] == [1.0, 0.0]
