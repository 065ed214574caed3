"""Constraints and counts where TensorFlow takes a regularizer: no loss can apply them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from penalize import L0, L1, MaxNorm, NoGradientError, NonNegative, Regularizer, everything
from penalize.tensorflow import contrib, regularize, regularized

v1 = tf.compat.v1
START = np.random.default_rng(0).normal(size=(4, 3))
INERT = [NonNegative(), L0(0.1), L1(0.1) + NonNegative(), MaxNorm(1.0, groups=0)]
RATE = 0.125
WORDS = r"has no gradient that could act on a weight.*mode=\"proximal\""


def model(regularizer: Any, partitioner: Any = None) -> Any:
    w = v1.get_variable(
        "w", initializer=tf.constant(START), regularizer=regularizer, partitioner=partitioner
    )
    return tf.reduce_sum(tf.convert_to_tensor(w) ** 2)


@pytest.mark.parametrize("partitioner", [None, v1.fixed_size_partitioner(2)])
@pytest.mark.parametrize("r", INERT, ids=str)
def test_the_collection_in_a_loss(r: Regularizer, partitioner: Any) -> None:
    """The data loss alone would have been minimized, without a word."""
    with tf.Graph().as_default():
        data = model(r, partitioner)
        optimizer = v1.train.GradientDescentOptimizer(RATE)
        with pytest.raises(NoGradientError, match=WORDS):
            optimizer.minimize(data + v1.losses.get_regularization_loss())
        with pytest.raises(NoGradientError, match=rf"\(on 'w(/part_0)?'\) {WORDS}"):
            regularized(optimizer).minimize(data)


def test_among_the_functions_of_contrib() -> None:
    layers = contrib.layers
    r = layers.sum_regularizer([layers.l1_regularizer(0.1), NonNegative()])
    with tf.Graph().as_default():
        data = model(r)
        with pytest.raises(NoGradientError, match=WORDS):
            v1.train.AdamOptimizer().minimize(data + v1.losses.get_regularization_loss())


@pytest.mark.parametrize("partitioner", [None, v1.fixed_size_partitioner(2)])
@pytest.mark.parametrize("r", INERT, ids=str)
def test_the_proximal_step_takes_them_over(r: Regularizer, partitioner: Any) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        data = model(r, partitioner)
        optimizer = regularized(v1.train.GradientDescentOptimizer(RATE), mode="proximal")
        train = optimizer.minimize(data)
        session.run(v1.global_variables_initializer())
        session.run(train)
        found = np.concatenate(session.run(v1.trainable_variables()))
    np.testing.assert_allclose(found, r.prox(START - RATE * 2 * START, RATE), rtol=1e-12)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("r", INERT, ids=str)
def test_a_value_that_is_differentiated(r: Regularizer, traced: bool) -> None:
    w = tf.Variable(START)

    def slope() -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(w) + r(w)
        return tape.gradient(loss, w)

    with pytest.raises(NoGradientError, match=WORDS):
        (tf.function(slope) if traced else slope)()
    np.testing.assert_allclose(r(w), r(START))  # the value itself is there


def test_a_function_with_a_value_can_be_saved(tmp_path: Path) -> None:
    """Saving traces the gradient of all that a function computes."""
    module = tf.Module()
    module.w = tf.Variable(START)
    module.value = tf.function(lambda: L0(0.1)(module.w), input_signature=[])
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    assert float(loaded.value()) == pytest.approx(0.1 * START.size)


def test_an_error_in_a_function_keeps_its_class() -> None:
    """Of others AutoGraph makes a StagingError, which no ``except`` of ours would know."""
    plan = regularize([tf.Variable(START)], {everything: NonNegative()})

    @tf.function
    def loss() -> Any:
        return plan.penalty()

    with pytest.raises(NoGradientError, match="on 'Variable'"):
        loss()
