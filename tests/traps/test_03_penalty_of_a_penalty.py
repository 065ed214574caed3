"""Trap 3: the collected penalties are passed for weights, and are penalized themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
import tf_slim

from penalize import AppliedTwiceError, PenaltyOfPenaltyWarning
from penalize.tensorflow import audit, contrib, regularized

v1 = tf.compat.v1
START = np.array([[1.0, -2.0]])


def test_naive_is_silent_and_ours_tells() -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        r = tf_slim.l2_regularizer(0.1)
        v1.get_variable("w", initializer=START, regularizer=r)
        penalties = v1.get_collection(v1.GraphKeys.REGULARIZATION_LOSSES)
        naive = tf_slim.apply_regularization(r, penalties)
        session.run(v1.global_variables_initializer())
        declared = 0.1 * 0.5 * 5
        assert session.run(naive) == pytest.approx(0.1 * 0.5 * declared**2)

    with tf.Graph().as_default():
        r = contrib.layers.l2_regularizer(0.1)
        v1.get_variable("w", initializer=START, regularizer=r)
        penalties = v1.get_collection(v1.GraphKeys.REGULARIZATION_LOSSES)
        with pytest.warns(PenaltyOfPenaltyWarning, match="which are penalties, not weights"):
            loss = contrib.layers.apply_regularization(r, penalties)
        declared_row, sum_row = audit(loss)
        assert math.isnan(declared_row.factor)
        assert declared_row.verdict.startswith("a penalty of a penalty")
        assert sum_row.verdict == "applied once; made of what is collected already: 'w'"
        with pytest.raises(AppliedTwiceError, match="a penalty of a penalty"):
            regularized(v1.train.AdamOptimizer()).minimize(loss)
