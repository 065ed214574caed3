"""``contrib.layers`` beside tf_slim's, its living twin: values, errors, names and collections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_slim
from hypothesis import given, settings
from hypothesis import strategies as st

from penalize import (
    L1,
    L2,
    GroupLasso,
    PenaltyError,
    PenaltyOfPenaltyWarning,
    RegularizerError,
    ScaleError,
)
from penalize.contrib import regularizer_of
from penalize.tensorflow import contrib

v1 = tf.compat.v1
ours: Any = contrib.layers
theirs: Any = tf_slim

Program = Callable[[Any], Any]
"""Builds something with one of the two libraries' functions."""


def summary(result: Any) -> Any:
    """What a program made: a number, or None."""
    if result is None:
        return None
    if isinstance(result, list):
        return [summary(item) for item in result]
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        return float(session.run(result))


def outcome(program: Program, layers: Any) -> dict[str, Any]:
    """What it gives in a graph of its own: value, names, collection; or the type of its error."""
    with tf.Graph().as_default() as graph:
        try:
            result = program(layers)
        except ValueError as error:
            return {"error": str(error).split(":", maxsplit=1)[0].split(" on a")[0]}
        collected = v1.get_collection(v1.GraphKeys.REGULARIZATION_LOSSES)
        return {
            "name": getattr(result, "name", None),
            "dtype": getattr(result, "dtype", None),
            "value": [summary(result)] if result is not None else [],
            "collected": [item.name for item in collected],
            "penalties": summary(collected),
            "trainable": [v.name for v in v1.trainable_variables()],
            "named": sorted(
                op.name for op in graph.get_operations() if op.name.endswith("egularizer")
            ),
        }


W = np.array([[1.0, -2.0], [3.0, 0.5]], np.float32)


def agree(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    """The same, values to rounding."""
    near = ("value", "penalties")
    exact = all(found[key] == expected[key] for key in expected if key not in near)
    return exact and all(
        found[key] == pytest.approx(expected[key], rel=1e-6) for key in near if key in expected
    )


def apply(make: Callable[[Any], Any]) -> Program:
    """A regularizer on a tensor."""
    return lambda layers: make(layers)(tf.constant(W))


def declared(make: Callable[[Any], Any], **arguments: Any) -> Program:
    """A regularizer on variables, by a scope."""

    def program(layers: Any) -> Any:
        with v1.variable_scope("net", regularizer=make(layers)):
            v1.get_variable("w", initializer=W, **arguments)
            v1.get_variable("bias", initializer=W[0], trainable=False)
            with v1.variable_scope("inner", regularizer=v1.no_regularizer):
                v1.get_variable("w", initializer=W)
        with v1.variable_scope("net", reuse=True, regularizer=make(layers)):
            v1.get_variable("w", shape=W.shape)
        return v1.losses.get_regularization_loss()

    return program


def partitioned(layers: Any) -> Any:
    with v1.variable_scope("net", partitioner=v1.fixed_size_partitioner(2)):
        v1.get_variable("w", initializer=W, regularizer=layers.l2_regularizer(0.5))
    return v1.losses.get_regularization_loss()


def with_weights(layers: Any) -> Any:
    v1.add_to_collection(v1.GraphKeys.WEIGHTS, tf.constant(W))
    v1.add_to_collection(v1.GraphKeys.WEIGHTS, tf.constant(2 * W))
    return layers.apply_regularization(layers.l1_regularizer(0.5), [])


PROGRAMS: dict[str, Program] = {
    "l1": apply(lambda k: k.l1_regularizer(0.5)),
    "l1 in a scope": apply(lambda k: k.l1_regularizer(0.5, scope="mine")),
    "l1 float64": lambda k: k.l1_regularizer(0.5)(tf.constant(W, tf.float64)),
    "l1 float16": lambda k: k.l1_regularizer(0.5)(tf.constant(W, tf.float16)),
    "l1 NumPy scale": apply(lambda k: k.l1_regularizer(np.float32(0.5))),
    "l2": apply(lambda k: k.l2_regularizer(0.5)),
    "l2 in a scope": apply(lambda k: k.l2_regularizer(0.5, "mine")),
    "l2 of a tensor": apply(lambda k: k.l2_regularizer(tf.constant(0.5))),
    "l1 of a tensor": apply(lambda k: k.l1_regularizer(tf.constant(0.5))),
    "l1 off": apply(lambda k: k.l1_regularizer(0.0)),
    "l2 off": apply(lambda k: k.l2_regularizer(0.0)),
    "l1_l2": apply(lambda k: k.l1_l2_regularizer(0.5, 0.25)),
    "l1_l2 by default": apply(lambda k: k.l1_l2_regularizer()),
    "l1_l2 in a scope": apply(lambda k: k.l1_l2_regularizer(0.5, 0.25, "mine")),
    "l1_l2, no l1": apply(lambda k: k.l1_l2_regularizer(0.0, 0.25)),
    "l1_l2, no l2": apply(lambda k: k.l1_l2_regularizer(0.5, 0.0)),
    "l1_l2 off": apply(lambda k: k.l1_l2_regularizer(0.0, 0.0)),
    "l1_l2 of a tensor": apply(lambda k: k.l1_l2_regularizer(tf.constant(0.5), 0.5)),
    "sum": apply(
        lambda k: k.sum_regularizer([k.l1_regularizer(0.5), None, k.l2_regularizer(0.25)])
    ),
    "sum in a scope": apply(lambda k: k.sum_regularizer([k.l1_regularizer(0.5)], scope="mine")),
    "sum of one that is off": apply(
        lambda k: k.sum_regularizer([k.l1_regularizer(0.0), k.l2_regularizer(0.25)])
    ),
    "sum of what is off": apply(lambda k: k.sum_regularizer([k.l1_regularizer(0.0)])),
    "sum of nothing": lambda k: k.sum_regularizer([None]),
    "sum of an empty list": lambda k: k.sum_regularizer([]),
    "apply": lambda k: k.apply_regularization(
        k.l2_regularizer(0.5), [tf.constant(W), tf.constant(2 * W)]
    ),
    "apply what is off": lambda k: k.apply_regularization(k.l2_regularizer(0.0), [tf.constant(W)]),
    "apply twice": lambda k: [
        k.apply_regularization(k.l2_regularizer(0.5), [tf.constant(W)]) for _ in range(2)
    ][1],
    "apply to WEIGHTS": with_weights,
    "apply to nothing": lambda k: k.apply_regularization(k.l2_regularizer(0.5)),
    "apply to an empty list": lambda k: k.apply_regularization(k.l2_regularizer(0.5), []),
    "apply what gives no scalar": lambda k: k.apply_regularization(tf.square, [tf.constant(W)]),
    "l1 of 1": lambda k: k.l1_regularizer(1),
    "l1 of 0": lambda k: k.l1_regularizer(0),
    "l1 of True": lambda k: k.l1_regularizer(True),
    "l1 of NumPy's 1": lambda k: k.l1_regularizer(np.int64(1)),
    "l1 of -0.1": lambda k: k.l1_regularizer(-0.1),
    "l2 of 1": lambda k: k.l2_regularizer(1),
    "l2 of -0.1": lambda k: k.l2_regularizer(-0.1),
    "l1_l2 of 1": lambda k: k.l1_l2_regularizer(1),
    "l1_l2 of 0 and 1": lambda k: k.l1_l2_regularizer(0.0, 1),
    "l1_l2 of -1": lambda k: k.l1_l2_regularizer(-1.0, 1.0),
    "l1_l2 of -1 and 0": lambda k: k.l1_l2_regularizer(-1.0, 0.0),
    "declared l1": declared(lambda k: k.l1_regularizer(0.5)),
    "declared l2": declared(lambda k: k.l2_regularizer(0.5)),
    "declared l1_l2": declared(lambda k: k.l1_l2_regularizer(0.5, 0.25)),
    "declared off": declared(lambda k: k.l2_regularizer(0.0)),
    "declared on a reference variable": declared(
        lambda k: k.l2_regularizer(0.5), use_resource=False
    ),
    "declared on a partitioned variable": partitioned,
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_as_tf_slim(program: Program) -> None:
    found, expected = outcome(program, ours), outcome(program, theirs)
    if "error" in expected:
        # The type, and TensorFlow 1's own words where they were a sentence.
        assert "error" in found
        for words in ("cannot be an integer", "No weights to regularize"):
            assert (words in expected["error"]) == (words in found["error"])
    assert found.keys() == expected.keys()
    if "error" not in expected:
        assert agree(found, expected), (found, expected)


def test_the_comparison_sees_a_difference() -> None:
    found = outcome(apply(lambda k: k.l2_regularizer(0.5)), ours)
    for other in (lambda k: k.l2_regularizer(0.25), lambda k: k.l2_regularizer(0.5, "mine")):
        assert not agree(outcome(apply(other), ours), found)


@given(st.floats(0, 1e3), st.floats(0, 1e3))
@settings(max_examples=20, deadline=None)
def test_any_scale_as_tf_slim(l1: float, l2: float) -> None:
    program = apply(lambda k: k.l1_l2_regularizer(l1, l2))
    assert agree(outcome(program, ours), outcome(program, theirs))


@pytest.mark.filterwarnings("ignore:`layer.apply` is deprecated")
def test_slims_own_layers_take_ours() -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        x = tf.constant(np.ones((2, 4, 4, 3), np.float32))
        with tf_slim.arg_scope([tf_slim.conv2d], weights_regularizer=GroupLasso(0.1, groups=-1)):
            tf_slim.conv2d(x, 5, 3, weights_regularizer=ours.l2_regularizer(0.3))
            tf_slim.conv2d(x, 5, 3)
        session.run(v1.global_variables_initializer())
        kernels = session.run(
            [v for v in v1.trainable_variables() if v.op.name.endswith("weights")]
        )
        found = session.run(v1.losses.get_regularization_losses())
    expected = [0.15 * (kernels[0] ** 2).sum(), GroupLasso(0.1, groups=-1)(kernels[1])]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["array", "eager tensor", "variable", "tf.function"])
def test_outside_of_graphs(kind: str) -> None:
    penalty = ours.l2_regularizer(0.5)
    calls: dict[str, Callable[[], Any]] = {
        "array": lambda: penalty(W),
        "eager tensor": lambda: penalty(tf.constant(W)),
        "variable": lambda: penalty(tf.Variable(W)),
        "tf.function": lambda: tf.function(penalty)(tf.constant(W)),
    }
    once, again = calls[kind](), calls[kind]()
    assert float(once) == float(again) == pytest.approx(0.25 * float((W**2).sum()))


def test_a_narrow_weight_is_summed_wide() -> None:
    w = np.full(3000, 10.0, np.float16)
    with tf.Graph().as_default():
        naive = summary(tf_slim.l2_regularizer(0.1)(tf.constant(w)))
        found = ours.l2_regularizer(0.1)(tf.constant(w))
        assert found.dtype == tf.float16
        assert naive == float("inf")
        assert summary(found) == pytest.approx(15_000, rel=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ours.l1_regularizer(1), "scale cannot be an integer: 1; write 1.0, as"),
        (lambda: ours.l1_l2_regularizer(0.1, True), "scale_l2 cannot be an integer: True; write"),
        (lambda: ours.l2_regularizer(-0.1), "scale=-0.1 is not a finite number >= 0; write a"),
        (lambda: ours.l2_regularizer(float("nan")), "scale=nan is not a finite number >= 0"),
        (lambda: ours.l2_regularizer("0.1"), "scale='0.1' is not a finite number >= 0"),
    ],
)
def test_scales_that_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ScaleError, match=message):
        make()


def test_what_apply_regularization_refuses() -> None:
    with tf.Graph().as_default():
        with pytest.raises(PenaltyError, match=r"No weights to regularize: .*expected weights"):
            ours.apply_regularization(L2(0.1))
        with pytest.raises(PenaltyError, match=r"returned a tensor of rank 2; expected a scalar"):
            ours.apply_regularization(tf.square, [tf.constant(W)])
        assert v1.get_collection(v1.GraphKeys.REGULARIZATION_LOSSES) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ours.sum_regularizer(3), "sum_regularizer got 3; expected a list of regularizers"),
        (lambda: ours.sum_regularizer([3]), r"got 3; expected a function such as l2_regularizer\("),
        (lambda: ours.apply_regularization("l2", [W]), "apply_regularization got 'l2'; expected a"),
    ],
)
def test_what_is_no_function(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(RegularizerError, match=f"(?i){message}"):
        call()


def test_penalties_for_weights_are_noticed() -> None:
    with tf.Graph().as_default():
        v1.get_variable("w", initializer=W, regularizer=L1(0.1))
        penalties = v1.get_collection(v1.GraphKeys.REGULARIZATION_LOSSES)
        with pytest.warns(PenaltyOfPenaltyWarning, match="'w/Regularizer/.*penalties, not weigh"):
            ours.apply_regularization(L1(0.1), penalties)


@pytest.mark.parametrize(
    ("make", "equal"),
    [
        (lambda: ours.l1_regularizer(0.5), L1(0.5)),
        (lambda: ours.l2_regularizer(0.5), L2(0.25)),
        (lambda: ours.l1_l2_regularizer(0.5, 0.5), L1(0.5) + L2(0.25)),
        (lambda: ours.l1_l2_regularizer(0.0, 0.5), L2(0.25)),
        (lambda: ours.sum_regularizer([L1(1.0), ours.l2_regularizer(0.5)]), L1(1.0) + L2(0.25)),
        (lambda: ours.sum_regularizer([L1(1.0), ours.l2_regularizer(0.0)]), L1(1.0) + L2(0.0)),
        (lambda: ours.sum_regularizer([L1(1.0), tf.nn.l2_loss]), None),
        (lambda: ours.l2_regularizer(tf.constant(0.5)), None),
        (lambda: ours.l2_regularizer(0.0), None),
        (lambda: tf.nn.l2_loss, None),
    ],
)
def test_the_regularizer_that_a_function_is(make: Callable[[], Any], equal: Any) -> None:
    function = make()
    found = regularizer_of(function)
    assert (found is None) == (equal is None)
    if found is not None:
        w = np.random.default_rng(0).normal(size=(3, 4))
        assert float(found(w)) == pytest.approx(float(equal(w)))
        assert float(function(w)) == pytest.approx(float(equal(w)))
