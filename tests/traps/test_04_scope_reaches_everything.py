"""Trap 4: a scope's regularizer reaches biases and variables that are not trained."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from penalize import L2
from penalize.tensorflow import audit, regularize

v1 = tf.compat.v1


def test_the_scope_takes_all_and_rules_take_kernels() -> None:
    with tf.Graph().as_default():
        with v1.variable_scope("net", regularizer=L2(0.1)):
            v1.get_variable("kernel", initializer=np.ones((2, 2)))
            v1.get_variable("bias", initializer=np.ones(2))
            v1.get_variable("count", initializer=np.ones(2), trainable=False)
        naive = v1.losses.get_regularization_losses()
        assert len(naive) == 3
        # Asked for with TensorFlow 1's semantics, it is all three; the audit says so.
        assert [row.name for row in audit(tf.add_n(naive))] == [
            "net/kernel",
            "net/bias",
            "net/count",
        ]
        plan = regularize(v1.global_variables(), L2(0.1))
        penalized = [row.name for row in plan.rows if row.regularizer is not None]
        assert penalized == ["net.kernel"]
