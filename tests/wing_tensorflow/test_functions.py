"""Variables that are made inside of loops, branches and functions, each of which is a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from penalize import L2, GroupLasso, LossError, PenaltyError, everything
from penalize.tensorflow import audit, contrib, regularize, regularized

v1 = tf.compat.v1
KEY = v1.GraphKeys.REGULARIZATION_LOSSES
START = np.random.default_rng(0).normal(size=(3, 3))
X = np.random.default_rng(1).normal(size=(2, 3))
RATE = 0.125  # exact in float32, which TensorFlow makes of it
L2_HALF = contrib.layers.l2_regularizer(0.2)


@pytest.fixture(autouse=True, scope="module")
def control_flow_as_functions() -> Iterator[None]:
    """What TensorFlow 2 has on by default, and a graph of TensorFlow 1 has not."""
    before = v1.control_flow_v2_enabled()
    v1.enable_control_flow_v2()
    yield
    if not before:
        v1.disable_control_flow_v2()


def start(shape: Any, dtype: Any = None, partition_info: Any = None) -> Any:
    """The initial value, or a shard of it."""
    offset = (0, 0) if partition_info is None else partition_info.var_offset
    return tf.constant(START[tuple(slice(o, o + n) for o, n in zip(offset, shape, strict=True))])


def cell(x: Any, regularizer: Any = L2_HALF, partitioner: Any = None) -> Any:
    """tanh(x·w), with a w that is made here and shared."""
    with v1.variable_scope("cell", None, [x], regularizer=regularizer, reuse=v1.AUTO_REUSE):
        w = v1.get_variable(
            "w", START.shape, tf.float64, initializer=start, partitioner=partitioner
        )
    return tf.tanh(x @ tf.convert_to_tensor(w))


def loop(body: Callable[[Any], Any], x: Any = X) -> Any:
    return tf.while_loop(lambda i, _: i < 3, lambda i, x: (i + 1, body(x)), (0, x))[1]


def branch(body: Callable[[Any], Any]) -> Any:
    return tf.cond(v1.placeholder_with_default(True, ()), lambda: body(X), lambda: tf.constant(X))


KINDS: dict[str, Callable[[Callable[[Any], Any]], Any]] = {
    "nowhere": lambda body: body(X),
    "while_loop": loop,
    "cond": branch,
    "both branches": lambda body: tf.cond(
        v1.placeholder_with_default(True, ()), lambda: body(X), lambda: body(2 * X)
    ),
    "case": lambda body: v1.case(
        [(v1.placeholder_with_default(False, ()), lambda: body(X))], default=lambda: body(2 * X)
    ),
    "switch_case": lambda body: tf.switch_case(
        v1.placeholder_with_default(0, ()), [lambda: body(X), lambda: body(2 * X)]
    ),
    "map_fn": lambda body: tf.map_fn(body, X[None]),
    "scan": lambda body: tf.scan(lambda a, x: body(a) + x, np.stack([X, X]), X),
    "foldl": lambda body: tf.foldl(lambda a, x: body(a) + x, np.stack([X, X]), X),
    "cond in a loop": lambda body: loop(lambda x: tf.cond(x[0, 0] < 9, lambda: body(x), lambda: x)),
    "loop in a cond": lambda body: branch(lambda x: loop(body, x)),
    "cond in a cond": lambda body: branch(lambda x: branch(body)),
    "template in a cond": lambda body: branch(v1.make_template("t", body)),
    "wrap_function": lambda body: v1.wrap_function(body, [tf.TensorSpec(X.shape, tf.float64)])(X),
}


def step(build: Callable[[], Any], mode: str = "") -> Any:
    """The weight after one step; without a mode, of what TensorFlow itself adds to the loss."""
    with tf.Graph().as_default(), v1.Session() as session:
        loss = tf.reduce_sum(build() ** 2)
        optimizer = v1.train.GradientDescentOptimizer(RATE)
        if mode:
            train = regularized(optimizer, mode=mode).minimize(loss)
        else:
            train = optimizer.minimize(loss + sum(v1.losses.get_regularization_losses()))
        session.run(v1.global_variables_initializer())
        session.run(train)
        return np.concatenate(session.run(v1.trainable_variables()), -1)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "wrap_function"])
def test_the_penalty_of_what_is_made_there(kind: str) -> None:
    found = step(lambda: KINDS[kind](cell), "gradient")
    data_only = step(lambda: KINDS[kind](lambda x: cell(x, None)))
    np.testing.assert_allclose(found, data_only - RATE * 0.2 * START, rtol=1e-12)


def test_the_penalty_of_shards_that_are_made_there() -> None:
    r, cut = GroupLasso(0.1, groups=0), v1.fixed_size_partitioner(3, axis=1)
    found = step(lambda: loop(lambda x: cell(x, r, cut)), "gradient")
    np.testing.assert_allclose(found, step(lambda: loop(lambda x: cell(x, r))), rtol=1e-12)


@pytest.mark.parametrize("kind", ["while_loop", "cond in a cond", "wrap_function"])
def test_the_proximal_step_of_what_is_made_there(kind: str) -> None:
    r = GroupLasso(0.1, groups=0)
    without = step(lambda: KINDS[kind](lambda x: cell(x, None)))
    found = step(lambda: KINDS[kind](lambda x: cell(x, r)), "proximal")
    np.testing.assert_allclose(found, r.prox(without, RATE), rtol=1e-12)


def test_what_tensorflow_itself_does_not_find() -> None:
    """``wrap_function`` has collections of its own, which ``tf.losses`` does not look at."""

    def wrapped(regularizer: Any) -> Any:
        return KINDS["wrap_function"](lambda x: cell(x, regularizer))

    data_only = step(lambda: wrapped(None))
    np.testing.assert_array_equal(step(lambda: wrapped(L2_HALF)), data_only)
    found = step(lambda: wrapped(L2_HALF), "gradient")
    np.testing.assert_allclose(found, data_only - RATE * 0.2 * START, rtol=1e-12)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "wrap_function"])
def test_the_audit_of_what_is_made_there(kind: str) -> None:
    with tf.Graph().as_default():
        loss = tf.reduce_sum(KINDS[kind](cell))
        total = loss + v1.losses.get_regularization_loss()
        assert [row.factor for row in audit(loss)] == [0.0]
        assert [row.factor for row in audit(total)] == [1.0]
        assert [row.factor for row in audit(total + v1.losses.get_regularization_loss())] == [2.0]
        assert regularized(v1.train.AdamOptimizer()).total_loss(total) is total


@pytest.mark.parametrize("kind", ["cond", "while_loop", "cond in a loop"])
def test_a_penalty_that_is_used_where_it_is_made_is_not_measured(kind: str) -> None:
    with tf.Graph().as_default():
        loss = tf.reduce_sum(KINDS[kind](lambda x: cell(x) + v1.losses.get_regularization_loss()))
        assert np.isnan(audit(loss)[0].factor)
        with pytest.raises(LossError, match="penalty on 'cell/w' is not known"):
            regularized(v1.train.AdamOptimizer()).minimize(loss)


@pytest.mark.parametrize("kind", ["cond", "while_loop"])
def test_a_penalty_that_is_entered_by_hand_there_is_refused(kind: str) -> None:
    """TensorFlow's own ``get_regularization_loss`` fails on it, with a word about graphs."""

    def body(x: Any) -> Any:
        y = cell(x, None)
        v1.add_to_collection(KEY, L2_HALF(v1.trainable_variables()[0]))
        return y

    with tf.Graph().as_default():
        loss = tf.reduce_sum(KINDS[kind](body))
        assert "made inside of a function, such as the body of a loop" in str(audit(loss))
        with pytest.raises(PenaltyError, match=r"inside of a function.*get_variable\(regularizer"):
            regularized(v1.train.AdamOptimizer()).minimize(loss)


def test_what_is_made_in_a_tf_function_is_not_known() -> None:
    def build() -> tuple[Any, list[Any]]:
        loss = tf.reduce_sum(tf.function(cell)(tf.constant(X)) ** 2)
        return loss, v1.global_variables()

    with tf.Graph().as_default(), v1.Session() as session:
        loss, variables = build()
        assert not v1.get_collection(KEY)
        optimizer = v1.train.GradientDescentOptimizer(RATE)
        with pytest.raises(LossError, match=r"'cell/w' was made by get_variable inside of a tf\.f"):
            regularized(optimizer).minimize(loss, var_list=variables)
        plan = regularize(variables, {everything: GroupLasso(0.1, groups=0)})
        train = regularized(optimizer, plan=plan).minimize(loss, var_list=variables)
        session.run(v1.global_variables_initializer())
        session.run(train)
        expected = step(lambda: cell(X, GroupLasso(0.1, groups=0)))
        np.testing.assert_allclose(session.run(variables[0]), expected, rtol=1e-12)


@pytest.mark.parametrize("mode", ["gradient", "proximal"])
@pytest.mark.parametrize("kind", ["nowhere", "while_loop"])
def test_a_training_step_in_a_wrapped_function(kind: str, mode: str) -> None:
    """How code of TensorFlow 1 runs in TensorFlow 2: its variables are eager ones."""
    r = GroupLasso(0.1, groups=0)

    def train() -> Any:
        loss = tf.reduce_sum(KINDS[kind](lambda x: cell(x, r)) ** 2)
        assert [row.factor for row in audit(loss)] == [0.0]
        optimizer = regularized(v1.train.GradientDescentOptimizer(RATE), mode=mode)
        with tf.control_dependencies([optimizer.minimize(loss)]):
            return tf.identity(loss)

    function = v1.wrap_function(train, [])
    function()
    (w,) = function.variables
    expected = step(lambda: KINDS[kind](lambda x: cell(x, r)), mode)
    np.testing.assert_allclose(w.numpy(), expected, rtol=1e-12)


def test_a_plan_of_eager_variables_in_a_tf_function() -> None:
    w = tf.Variable(START)
    plan = regularize([w], {everything: GroupLasso(0.1, groups=0)})
    optimizer = regularized(v1.train.GradientDescentOptimizer(RATE), plan=plan)

    @tf.function
    def train() -> None:
        optimizer.minimize(tf.reduce_sum(tf.tanh(X @ w) ** 2), var_list=[w])

    train()
    expected = step(lambda: cell(X, GroupLasso(0.1, groups=0)))
    np.testing.assert_allclose(w.numpy(), expected, rtol=1e-12)


def test_a_call_of_a_defun_hides_what_is_in_it() -> None:
    """TensorFlow 1's own functions are called by operations of their names."""
    from tensorflow.python.framework import function  # TensorFlow exports it no more

    with tf.Graph().as_default():
        w = v1.get_variable("w", initializer=tf.constant(START))
        plan = regularize([w], {everything: L2(0.5)})

        @function.Defun(tf.float64)
        def loss_of(x: Any) -> Any:
            return tf.reduce_sum(x) + plan.penalty()

        loss = loss_of(w)
        assert np.isnan(audit(loss, plan).rows[0].factor)
        with pytest.raises(LossError, match="inside of a function"):  # it was added once more
            regularized(v1.train.GradientDescentOptimizer(1.0), plan=plan).minimize(loss)
