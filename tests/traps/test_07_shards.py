"""Trap 7: a partitioned variable is penalized shard by shard."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from penalize import GroupLasso
from penalize.tensorflow import regularize

v1 = tf.compat.v1
W = np.random.default_rng(0).normal(size=(6, 4))


def columns(w: tf.Tensor) -> tf.Tensor:
    """The naive group lasso over outputs, as one would write it for a whole variable."""
    return tf.reduce_sum(tf.sqrt(tf.reduce_sum(tf.convert_to_tensor(w) ** 2, axis=0)))


def test_naive_and_ours() -> None:
    expected = np.linalg.norm(W, axis=0).sum()
    r = GroupLasso(1.0, groups=1, size_weighted=False)
    for regularizer, right in ((columns, False), (r, True)):
        with tf.Graph().as_default(), v1.Session() as session:
            v1.get_variable(
                "w",
                initializer=tf.constant(W),
                partitioner=v1.fixed_size_partitioner(3),
                regularizer=regularizer,
            )
            assert len(v1.losses.get_regularization_losses()) == 3
            total = v1.losses.get_regularization_loss()
            by_rules = regularize(v1.trainable_variables(), r)
            session.run(v1.global_variables_initializer())
            assert (session.run(total) == pytest.approx(expected, rel=1e-12)) == right
            assert by_rules.breakdown() == {"w": pytest.approx(expected, rel=1e-12)}
            assert [row.shape for row in by_rules.rows] == [(6, 4)]
