"""Trap 2: a strength that is declared, and multiplied again where the penalties are added up."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from penalize import AppliedTwiceError
from penalize.tensorflow import audit, contrib, regularized

v1 = tf.compat.v1
START = np.array([[1.0, -2.0]])


def test_naive_and_audited() -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable("w", initializer=START, regularizer=contrib.layers.l2_regularizer(0.1))
        data = v1.constant(1.0, tf.float64)
        penalties = v1.get_collection(v1.GraphKeys.REGULARIZATION_LOSSES)
        loss = data + 0.01 * sum(penalties)
        session.run(v1.global_variables_initializer())
        naive = session.run(loss) - 1.0
        assert naive == pytest.approx(0.01 * 0.1 * 0.5 * 5)  # a hundredth of what is declared
        (row,) = audit(loss)
        assert row.factor == pytest.approx(0.01)
        assert row.verdict == "strength multiplied again, by 0.01"
        with pytest.raises(AppliedTwiceError, match=r"strength multiplied again, by 0\.01"):
            regularized(v1.train.AdamOptimizer()).minimize(loss)
