"""``contrib.layers`` on PyTorch: TensorFlow 1's units, checks and collections."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow
import torch

from penalize import L1, L2, PenaltyError, PenaltyOfPenaltyWarning, RegularizerError, ScaleError
from penalize.torch import tf1
from penalize.torch.tf1.contrib import layers

tf = tensorflow.compat.v1
W = np.array([[0.5, -1.0, 2.0], [3.0, 0.25, -0.125]])
LOSSES = tf1.GraphKeys.REGULARIZATION_LOSSES


@pytest.fixture(autouse=True)
def store() -> Iterator[tf1.VariableStore]:
    with tf1.VariableStore() as store:
        yield store


def test_the_public_names() -> None:
    assert tf1.contrib.layers is layers
    assert sorted(layers.__all__) == [
        "apply_regularization",
        "l1_l2_regularizer",
        "l1_regularizer",
        "l2_regularizer",
        "sum_regularizer",
    ]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_units(dtype: str) -> None:
    """Against TensorFlow's own operations; the L2 has a half."""
    w = torch.tensor(W.astype(dtype), requires_grad=True)
    with tf.Graph().as_default(), tf.Session() as session:
        constant = tf.constant(W.astype(dtype))
        l1, l2 = session.run([tf.reduce_sum(tf.abs(constant)), tf.nn.l2_loss(constant)])
    found = [
        layers.l1_regularizer(0.5)(w),
        layers.l2_regularizer(0.25)(w),
        layers.l1_l2_regularizer(0.5, 0.25)(w),
        layers.l1_l2_regularizer()(w),
        layers.l1_l2_regularizer(0.0, 0.25)(w),
        layers.l1_l2_regularizer(0.5, 0.0)(w),
        layers.sum_regularizer([layers.l1_regularizer(2.0), None, L2(1.0)])(w),
    ]
    expected = [
        0.5 * l1,
        0.25 * l2,
        0.5 * l1 + 0.25 * l2,
        l1 + l2,
        0.25 * l2,
        0.5 * l1,
        2 * (l1 + l2),
    ]
    np.testing.assert_allclose([p.item() for p in found], expected, rtol=1e-6)
    assert {str(p.dtype) for p in found} == {f"torch.{dtype}"}
    found[1].backward()
    np.testing.assert_allclose(w.grad.numpy(), 0.25 * W, rtol=1e-6)


@pytest.mark.parametrize("scale", [0.5, np.float32(0.5), np.float64(0.5), torch.tensor(0.5)])
def test_kinds_of_scales(scale: Any) -> None:
    penalty = layers.l2_regularizer(scale)(torch.ones(4))
    assert penalty.item() == 1.0
    assert penalty.dtype is torch.float32


def test_a_scale_may_be_learned() -> None:
    scale = torch.tensor(0.5, requires_grad=True)
    layers.l1_regularizer(scale)(torch.ones(4)).backward()
    assert scale.grad == 4.0


@pytest.mark.parametrize("scale", [1, 0, True, -0.1, float("nan")])
def test_scales_that_are_refused(scale: Any) -> None:
    for factory in (layers.l1_regularizer, layers.l2_regularizer, layers.l1_l2_regularizer):
        with pytest.raises(ScaleError, match="scale"):
            factory(scale)


def test_a_scale_of_zero_declares_nothing() -> None:
    tf1.get_variable("w", [2], regularizer=layers.l2_regularizer(0.0))
    assert layers.sum_regularizer([None, None]) is None
    assert layers.sum_regularizer([layers.l1_regularizer(0.0)])(torch.ones(2)) is None
    assert tf1.get_collection(LOSSES) == []


@pytest.mark.parametrize(
    "weights",
    [[W, 2 * W], [torch.tensor(W), torch.tensor(2 * W)], [torch.tensor(W), 2 * W]],
    ids=["numpy", "torch", "mixed"],
)
def test_apply_regularization(weights: list[Any]) -> None:
    for regularizer in (layers.l1_regularizer(0.5), L1(0.5)):
        penalty = layers.apply_regularization(regularizer, weights)
        assert isinstance(penalty, torch.Tensor)
        assert penalty.item() == pytest.approx(1.5 * np.abs(W).sum(), rel=1e-6)
    assert [p.item() for p in tf1.get_collection(LOSSES)] == [penalty.item()] * 2


def test_apply_regularization_to_the_collection_of_weights() -> None:
    with tf1.variable_scope("s"):
        w = tf1.get_variable("w", [2], initializer=torch.ones)
        tf1.add_to_collection(tf1.GraphKeys.WEIGHTS, w)
        for weights in (None, []):
            assert layers.apply_regularization(layers.l1_regularizer(0.5), weights).item() == 1.0
    # The same declaration twice is one entry, in the scope in which it was made.
    assert [p.item() for p in tf1.get_collection(LOSSES, "s")] == [1.0]
    assert tf1.get_collection(LOSSES, "s/w") == []


def test_apply_regularization_of_none_is_zero() -> None:
    w = tf1.get_variable("w", [2])
    assert layers.apply_regularization(tf1.no_regularizer, [w]).item() == 0.0
    assert [p.item() for p in tf1.get_collection(LOSSES)] == [0.0]


def test_apply_regularization_without_weights() -> None:
    with pytest.raises(PenaltyError, match="No weights to regularize"):
        layers.apply_regularization(L2(0.1))
    assert tf1.get_collection(LOSSES) == []


def test_apply_regularization_needs_scalars() -> None:
    w = tf1.get_variable("net/w", [2])
    with pytest.raises(PenaltyError, match=r"returned a tensor of shape \(2,\) for 'net/w'; expec"):
        layers.apply_regularization(torch.abs, [w])
    with pytest.raises(PenaltyError, match=r"returned a tensor of shape \(2,\) for 'a weight'"):
        layers.apply_regularization(torch.abs, [torch.ones(2)])
    assert tf1.get_collection(LOSSES) == []


def test_penalties_for_weights_are_noticed_and_stay_a_penalty_of_a_penalty() -> None:
    r = tf1.contrib.layers.l2_regularizer(0.5)
    with tf1.VariableStore():
        w = tf1.get_variable("w", [2], initializer=torch.ones, regularizer=r)
        for scale in (1.0, 2.0):  # as in two steps
            with torch.no_grad():
                w.fill_(scale)
            penalties = tf1.get_collection(tf1.GraphKeys.REGULARIZATION_LOSSES)[:1]
            with pytest.warns(PenaltyOfPenaltyWarning, match="'w/Regularizer', which are penal"):
                again = tf1.contrib.layers.apply_regularization(r, penalties)
            assert again.item() == 0.25 * (0.25 * 2 * scale**2) ** 2
            declared, of_it = tf1.get_collection(tf1.GraphKeys.REGULARIZATION_LOSSES)
            assert of_it.item() == again.item()
            (declared + of_it).backward()


def test_what_is_no_function() -> None:
    with tf1.VariableStore(), pytest.raises(RegularizerError, match="got 3; expected a function"):
        tf1.contrib.layers.apply_regularization(3, [torch.ones(2)])
