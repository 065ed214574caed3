"""Trap 5: a variable is shared with another regularizer than it was made with."""

from __future__ import annotations

import warnings

import pytest
import tensorflow
import torch
from torch import nn

from penalize import L1, L2, ConflictError, IgnoredRegularizerWarning
from penalize.torch import regularize, tf1

tf = tensorflow.compat.v1


def test_naive() -> None:
    """TensorFlow 1 keeps the first regularizer and says nothing about the second."""
    with tf.Graph().as_default(), tf.Session() as session, warnings.catch_warnings():
        warnings.simplefilter("error")
        for reuse, strength in ((False, 0.1), (True, 100.0)):
            with tf.variable_scope("s", reuse=reuse, regularizer=lambda w, s=strength: s * w[0]):
                tf.get_variable("w", [1], initializer=tf.ones_initializer())
        session.run(tf.global_variables_initializer())
        (loss,) = tf.losses.get_regularization_losses()
        assert session.run(tf.convert_to_tensor(loss)) == pytest.approx(0.1)


def test_in_the_torch_vocabulary() -> None:
    l2_regularizer = tf1.contrib.layers.l2_regularizer
    with tf1.VariableStore():
        with tf1.variable_scope("s", regularizer=l2_regularizer(0.5)):
            w = tf1.get_variable("w", [1], initializer=torch.ones)
        with tf1.variable_scope("s", reuse=True, regularizer=l2_regularizer(100.0)):
            message = (
                r"^Variable 's/w' was made with the regularizer l2_regularizer\(scale=0\.5\); it "
                r"is shared here with l2_regularizer\(scale=100\.0\), which is ignored"
            )
            with pytest.warns(IgnoredRegularizerWarning, match=message) as caught:
                again = tf1.get_variable("w", [1])
        assert again is w
        (loss,) = tf1.losses.get_regularization_losses()
        assert loss.item() == 0.25
    assert caught[0].filename == __file__


def test_rules_that_disagree_are_refused() -> None:
    model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    model["b"].weight = model["a"].weight
    with pytest.raises(ConflictError, match=r"'a\.weight' and 'b\.weight' are one tied parameter"):
        regularize(model, {"a.weight": L2(0.1), "b.weight": L1(0.1)})
