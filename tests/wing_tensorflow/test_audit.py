"""``audit``: the factor with which each declared penalty enters a loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from penalize import L1, L2, AuditError, GroupLasso, LossError
from penalize.tensorflow import audit, contrib, regularize

v1 = tf.compat.v1
KEY = v1.GraphKeys.REGULARIZATION_LOSSES

ONCE, NEVER = "applied once", "never applied"
AGAIN = "a penalty of a penalty, or another nonlinear function of one"


def build(regularizer: Any = None) -> Any:
    """Two declared variables, and a data loss."""
    regularizer = regularizer or contrib.layers.l2_regularizer(0.1)
    x = tf.constant(np.ones((5, 3), np.float32))
    with v1.variable_scope("net", regularizer=regularizer):
        w = v1.get_variable("w", initializer=np.ones((3, 2), np.float32))
        b = v1.get_variable("b", initializer=np.ones(2, np.float32))
    return tf.reduce_mean(tf.square(x @ w + b))


LOSSES: dict[str, tuple[Callable[[Any], Any], float, str]] = {
    "left out": (lambda data: data, 0.0, NEVER),
    "by get_total_loss": (lambda data: data + v1.losses.get_regularization_loss(), 1.0, ONCE),
    "by sum": (lambda data: data + sum(v1.get_collection(KEY)), 1.0, ONCE),
    "by add_n": (lambda data: tf.add_n([data, *v1.get_collection(KEY)]), 1.0, ONCE),
    "times 0.01": (
        lambda data: data + 0.01 * sum(v1.get_collection(KEY)),
        0.01,
        "strength multiplied again, by 0.01",
    ),
    "twice": (
        lambda data: data + v1.losses.get_regularization_loss() + sum(v1.get_collection(KEY)),
        2.0,
        "applied 2 times",
    ),
    "subtracted": (
        lambda data: data - sum(v1.get_collection(KEY)),
        -1.0,
        "subtracted: the penalty is rewarded",
    ),
    "half and half": (
        lambda data: (
            0.5 * (data + sum(v1.get_collection(KEY))) + 0.5 * v1.losses.get_regularization_loss()
        ),
        1.0,
        ONCE,
    ),
    "averaged over a batch": (
        lambda data: tf.reduce_mean(tf.fill([7], data) + sum(v1.get_collection(KEY))),
        1.0,
        ONCE,
    ),
    "broadcast to a batch": (
        lambda data: tf.fill([7], data) + sum(v1.get_collection(KEY)),
        7.0,
        "applied 7 times",
    ),
    "stopped": (lambda data: data + tf.stop_gradient(sum(v1.get_collection(KEY))), 0.0, NEVER),
    "squared": (lambda data: data + sum(v1.get_collection(KEY)) ** 2, math.nan, AGAIN),
    "penalized": (
        lambda data: (
            data + L1(0.5)(tf.stack([tf.convert_to_tensor(p) for p in v1.get_collection(KEY)]))
        ),
        math.nan,
        AGAIN,
    ),
}


@pytest.mark.parametrize(("loss", "factor", "verdict"), LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("kind", ["contrib", "penalize", "function"])
def test_how_a_penalty_enters(
    loss: Callable[[Any], Any], factor: float, verdict: str, kind: str
) -> None:
    regularizer = {
        "contrib": contrib.layers.l2_regularizer(0.1),
        "penalize": GroupLasso(0.1, groups=0),
        "function": lambda w: 0.1 * tf.reduce_sum(tf.abs(w)) + tf.nn.l2_loss(w),
    }[kind]
    with tf.Graph().as_default() as graph:
        total = loss(build(regularizer))
        before = graph.as_graph_def()
        graph.finalize()
        report = audit(total)
        assert graph.as_graph_def() == before
    assert [row.name for row in report] == ["net/w", "net/b"]
    assert [row.factor for row in report] == pytest.approx([factor] * 2, nan_ok=True)
    assert [row.verdict for row in report] == [verdict] * 2
    assert report.ok == (verdict == ONCE)


def test_that_gradients_and_other_losses_exist_already_changes_nothing() -> None:
    """As when a loss is audited after the training operation was made."""
    with tf.Graph().as_default():
        data = build()
        total = data + v1.losses.get_regularization_loss()
        other = 3 * v1.losses.get_regularization_loss()
        v1.train.AdamOptimizer().minimize(total)
        assert [row.factor for row in audit(total)] == [1.0, 1.0]
        assert [row.factor for row in audit(other)] == [3.0, 3.0]
        assert [row.factor for row in audit(data)] == [0.0, 0.0]


def test_a_factor_that_is_looked_up() -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        strength = v1.placeholder(tf.float32, ())
        rate = v1.get_variable("rate", initializer=0.5, trainable=False, use_resource=True)
        old = v1.get_variable("old", initializer=0.5, trainable=False, use_resource=False)
        total = build() + strength * rate * old * v1.losses.get_regularization_loss()
        session.run(v1.global_variables_initializer())
        blind = audit(total)
        assert all(math.isnan(row.factor) for row in blind)
        assert "depends on 'Placeholder:0', 'mul/ReadVariableOp:0', 'old/read:0': pass" in str(
            blind
        )
        assert "pass session= (and feed_dict=)" in str(blind)
        report = audit(total, session=session, feed_dict={strength: 4.0})
        assert [row.factor for row in report] == [1.0, 1.0]
        default = v1.placeholder_with_default(0.25, ())
        (row, _) = audit(default * v1.losses.get_regularization_loss(), session=session)
        assert row.factor == 0.25


def test_tensors_that_were_entered_by_hand() -> None:
    with tf.Graph().as_default():
        w = tf.Variable(np.ones((3, 2), np.float32), name="w")
        v1.add_to_collection(KEY, tf.nn.l2_loss(w, name="mine"))
        v1.add_to_collection(KEY, L1(0.1)(w))
        penalties = v1.get_collection(KEY)
        first, second = audit(tf.reduce_sum(w) + penalties[0] + 0.5 * penalties[1])
        assert (first.name, first.factor, second.factor) == ("mine", 1.0, 0.5)


def test_weights_that_were_entered_as_they_are() -> None:
    with tf.Graph().as_default():
        w = tf.Variable(np.ones((3, 2), np.float32), name="w")
        v1.add_to_collection(KEY, w)
        (row,) = audit(tf.reduce_sum(w))
        assert row.verdict == "weights, not a penalty: no regularizer was applied"


def test_a_penalty_made_of_penalties_is_told() -> None:
    with tf.Graph().as_default():
        data = build()
        v1.add_to_collection(KEY, tf.add_n(v1.get_collection(KEY), name="total"))
        report = audit(data + v1.losses.get_regularization_loss())
        assert [row.factor for row in report] == [2.0, 2.0, 1.0]
        assert report[2].note == "made of what is collected already: 'net/w', 'net/b'"


def test_a_penalty_of_unknown_rank() -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        w = v1.get_variable("w", initializer=np.ones((3, 2), np.float32))
        penalty = v1.py_func(np.sum, [w], tf.float32)
        assert penalty.shape.rank is None
        v1.add_to_collection(KEY, penalty)
        data = tf.reduce_sum(tf.convert_to_tensor(w))
        session.run(v1.global_variables_initializer())
        (row,) = audit(data + 2 * penalty, session=session)
        assert row.factor == 2.0


def test_what_is_no_tensor_at_all() -> None:
    with tf.Graph().as_default():
        v1.add_to_collection(KEY, 0.5)
        (row,) = audit(tf.constant(1.0))
        assert row.verdict == "weights, not a penalty: no regularizer was applied"


def test_a_batch_of_unknown_size() -> None:
    """A penalty that is broadcast to it enters by its shape, and not by another penalty."""
    with tf.Graph().as_default(), v1.Session() as session:
        build()
        x = v1.placeholder(tf.float32, (None,))
        loss = tf.reduce_mean(x + v1.losses.get_regularization_loss())
        assert "depends on 'Placeholder:0'" in audit(loss).rows[0].note
        session.run(v1.global_variables_initializer())
        report = audit(loss, session=session, feed_dict={x: np.ones(5)})
        assert [row.factor for row in report] == [1.0, 1.0]


@pytest.mark.parametrize(("dtype", "count"), [("float32", 10_000), ("float16", 7)])
def test_rounding_is_not_another_strength(dtype: str, count: int) -> None:
    with tf.Graph().as_default():
        v1.get_variable("w", initializer=np.ones(3, dtype), regularizer=L2(0.1))
        penalty = tf.cast(v1.losses.get_regularization_loss(), dtype)
        (row,) = audit(tf.reduce_mean(tf.zeros(count, dtype) + penalty))
        assert row.factor != 1.0
        assert row.verdict == "applied once"


def test_a_loop_that_has_nothing_to_do_with_it() -> None:
    with tf.Graph().as_default():
        data = build()
        loop = tf.while_loop(lambda i, s: i < 3, lambda i, s: (i + 1, s * 0.5), (0, data))[1]
        assert audit(loop + v1.losses.get_regularization_loss(), strict=True).ok


def test_a_function_that_cannot_be_differentiated() -> None:
    @tf.custom_gradient
    def broken(x: tf.Tensor) -> Any:
        def grad(up: tf.Tensor) -> tf.Tensor:
            raise RuntimeError("mine")

        return tf.identity(x), grad

    with tf.Graph().as_default():
        data = build()
        (first, _) = audit(broken(data + v1.losses.get_regularization_loss()))
        assert math.isnan(first.factor)
        assert first.note.startswith("cannot be differentiated (")
        assert "mine" in first.note


def test_a_scope_ends_at_its_name() -> None:
    with tf.Graph().as_default():
        for name in ("s", "s2"):
            v1.get_variable(f"{name}/w", initializer=np.ones(2), regularizer=L2(0.1))
        total = v1.losses.get_regularization_loss()
        assert len(v1.get_collection(KEY, scope="s")) == 2
        for scope in ("s", "s/", "s/w"):
            assert [row.name for row in audit(total, scope=scope)] == ["s/w"]


def test_strict() -> None:
    with tf.Graph().as_default():
        data = build()
        assert len(audit(data + v1.losses.get_regularization_loss(), strict=True)) == 2
        with pytest.raises(AuditError, match=r"not applied exactly once:\n(.*\n)+net/w +0 +never"):
            audit(data, strict=True)


def test_how_a_report_prints() -> None:
    with tf.Graph().as_default():
        data = build()
        first, second = v1.get_collection(KEY)
        report = audit(data + first + 0.01 * second)
        assert str(report).splitlines() == [
            "penalty  factor  verdict",
            "-------  ------  ----------------------------------",
            "net/b    0.01    strength multiplied again, by 0.01",
            "net/w    1       applied once",
            "1 of 2 applied exactly once",
        ]
        assert repr(report) == str(report)
        assert [row.name for row in report.wrong] == ["net/b"]
    with tf.Graph().as_default():
        assert str(audit(tf.constant(0.0))) == "no penalty is declared"


def test_the_penalties_of_a_plan() -> None:
    with tf.Graph().as_default():
        data = build(v1.no_regularizer)
        plan = regularize(v1.trainable_variables(), L1(0.1))
        assert [(r.name, r.factor) for r in audit(data, plan)] == [("net.w", 0.0)]
        total = data + plan.penalty()
        assert [r.factor for r in audit(total, plan)] == [1.0]
        assert [r.factor for r in audit(total + plan.penalty(), plan)] == [2.0]
        assert [r.factor for r in audit(data, plan)] == [0.0]


# --- TensorFlow 2 ---------------------------------------------------------------------------


def eager() -> tuple[tf.Variable, Any]:
    w = tf.Variable(np.ones((3, 2), np.float32), name="w")
    return w, regularize([w], L2(0.1))


_, OTHER = eager()

FUNCTIONS: dict[str, tuple[Callable[[Any, Any], Any], float]] = {
    "left out": (lambda data, plan: data, 0.0),
    "once": (lambda data, plan: data + plan.penalty(), 1.0),
    "times 0.01": (lambda data, plan: data + 0.01 * plan.penalty(), 0.01),
    "twice": (lambda data, plan: data + plan.penalty() + plan.penalty(), 2.0),
    "squared": (lambda data, plan: data + plan.penalty() ** 2, math.nan),
    "of the wrong plan": (lambda data, plan: data + OTHER.penalty(), 0.0),
}


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize(("loss", "factor"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_function(loss: Callable[[Any, Any], Any], factor: float, traced: bool) -> None:
    w, plan = eager()

    def call() -> Any:
        return loss(tf.reduce_sum(w), plan)

    function = tf.function(call) if traced else call
    before = float(function())
    (row,) = audit(function, plan)
    assert row.factor == pytest.approx(factor, rel=1e-6, nan_ok=True)
    assert row.ok == (factor == 1.0)
    assert float(function()) == before
    assert not tf.config.functions_run_eagerly()


def test_a_failing_function_leaves_no_trace() -> None:
    _, plan = eager()

    def broken() -> Any:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        audit(broken, plan)
    assert not tf.config.functions_run_eagerly()
    assert plan._probe is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: audit(lambda: 1.0, L2(0.1)), "got a L2 as the plan; pass what regularize"),
        (lambda: audit(3.0), "got a float as the loss; pass the tensor of a TensorFlow 1 graph"),
        (lambda: audit(tf.constant(1.0)), r"audit\(lambda: loss_of\(batch\), plan\)"),
        (
            lambda: audit(tf.function(lambda: tf.constant(1.0)).get_concrete_function(), OTHER),
            r"ConcreteFunction as the loss; .*audit\(lambda: loss_of\(batch\), plan\)",
        ),
        (lambda: audit(lambda: 1.0), "got a function as the loss; .*and the plan"),
        (lambda: audit(lambda: 1.0, eager()[1]), "returned a float; return the loss, a tensor"),
    ],
)
def test_what_is_no_loss(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(LossError, match=message):
        call()
