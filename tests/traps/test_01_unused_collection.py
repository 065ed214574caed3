"""Trap 1: the collection is filled, and nobody uses it."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from penalize.tensorflow import audit, contrib, regularized

v1 = tf.compat.v1
START = np.array([[1.0, -2.0]])


def test_naive_and_regularized() -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        with v1.variable_scope("net", regularizer=contrib.layers.l2_regularizer(0.1)):
            w = v1.get_variable("w", initializer=START)
        loss = tf.reduce_sum(tf.convert_to_tensor(w))
        plain = v1.train.GradientDescentOptimizer(1.0)
        ((naive, _),) = plain.compute_gradients(loss)
        ((gradient, _),) = regularized(plain).compute_gradients(loss)
        session.run(v1.global_variables_initializer())
        np.testing.assert_array_equal(session.run(naive), np.ones_like(START))
        np.testing.assert_allclose(session.run(gradient), 1 + 0.1 * START, rtol=1e-12)
        (row,) = audit(loss)
        assert (row.name, row.factor, row.verdict) == ("net/w", 0.0, "never applied")
