"""Trap 8: two networks in one graph share one collection."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from penalize import L2
from penalize.tensorflow import audit, regularized

v1 = tf.compat.v1
START = np.array([[1.0, -2.0]])


def test_each_optimizer_takes_the_penalties_of_its_own_variables() -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        for name in ("generator", "critic"):
            with v1.variable_scope(name, regularizer=L2(0.1)):
                v1.get_variable("w", initializer=START)
        generator, critic = v1.trainable_variables()
        loss = tf.reduce_sum(tf.convert_to_tensor(generator) * tf.convert_to_tensor(critic))
        naive = loss + v1.losses.get_regularization_loss()
        session.run(v1.global_variables_initializer())
        # The reported loss of one network contains the penalty of the other.
        assert session.run(naive - loss) == 2 * 0.1 * 5.0

        optimizer = regularized(v1.train.GradientDescentOptimizer(0.1))
        total = optimizer.total_loss(loss, [generator])
        assert {row.name: row.factor for row in audit(total)} == {"generator/w": 1, "critic/w": 0}
        session.run(optimizer.minimize(loss, var_list=[generator]))
        after, untouched = session.run([generator, critic])
        np.testing.assert_allclose(after, START - 0.1 * (START + 0.2 * START), rtol=1e-7)
        np.testing.assert_array_equal(untouched, START)
