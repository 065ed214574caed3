"""``regularized``: every collected penalty of the updated variables, in the update once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from penalize import (
    L1,
    L2,
    AppliedTwiceError,
    GroupLasso,
    LossError,
    ModeError,
    OptimizerError,
    PenaltyError,
    kernels,
)
from penalize.tensorflow import audit, contrib, regularize, regularized

v1 = tf.compat.v1
KEY = v1.GraphKeys.REGULARIZATION_LOSSES
START = np.random.default_rng(0).normal(size=(3, 2))
X = np.random.default_rng(1).normal(size=(8, 3))

OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "gradient descent": lambda: v1.train.GradientDescentOptimizer(0.1),
    "momentum": lambda: v1.train.MomentumOptimizer(0.1, 0.9),
    "nesterov": lambda: v1.train.MomentumOptimizer(0.1, 0.9, use_nesterov=True),
    "Adam": lambda: v1.train.AdamOptimizer(0.1),
    "Adagrad": lambda: v1.train.AdagradOptimizer(0.1),
    "Adadelta": lambda: v1.train.AdadeltaOptimizer(0.1),
    "RMSProp": lambda: v1.train.RMSPropOptimizer(0.1),
    "FTRL": lambda: v1.train.FtrlOptimizer(0.1),
    "a tensor for a rate": lambda: v1.train.GradientDescentOptimizer(tf.constant(0.1)),
}


def model(regularizer: Any, *, use_resource: bool = True) -> Any:
    """A data loss; its weight is ``w``, its bias declares nothing."""
    w = v1.get_variable("w", initializer=START, regularizer=regularizer, use_resource=use_resource)
    b = v1.get_variable("b", initializer=np.zeros(2), use_resource=use_resource)
    return tf.reduce_mean(tf.square(X @ tf.convert_to_tensor(w) + b - 1.0))


def train(build: Callable[[], Any], steps: int = 3) -> np.ndarray:
    """The weight after some steps of what is built in a graph of its own."""
    with tf.Graph().as_default(), v1.Session() as session:
        operation = build()
        session.run(v1.global_variables_initializer())
        for _ in range(steps):
            session.run(operation)
        (w,) = [v for v in v1.global_variables() if v.op.name == "w"]
        return session.run(w)


@pytest.mark.parametrize("use_resource", [True, False])
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_equals_the_penalty_in_the_loss(optimizer: Callable[[], Any], use_resource: bool) -> None:
    r = contrib.layers.l2_regularizer(0.3)

    def naive() -> Any:
        return optimizer().minimize(model(r, use_resource=use_resource))

    def by_hand() -> Any:
        loss = model(r, use_resource=use_resource)
        return optimizer().minimize(loss + v1.losses.get_regularization_loss())

    def ours() -> Any:
        return regularized(optimizer()).minimize(model(r, use_resource=use_resource))

    np.testing.assert_allclose(train(ours), train(by_hand), rtol=1e-12)
    assert abs(train(naive) - train(by_hand)).max() > 1e-4


def test_what_the_loss_has_already_is_not_added() -> None:
    def ours() -> Any:
        data = model(L1(0.2))
        once = data + v1.losses.get_regularization_loss()
        return regularized(v1.train.GradientDescentOptimizer(0.1)).minimize(once)

    def plain() -> Any:
        once = model(L1(0.2)) + v1.losses.get_regularization_loss()
        return v1.train.GradientDescentOptimizer(0.1).minimize(once)

    np.testing.assert_allclose(train(ours), train(plain), rtol=1e-12)


def test_wrapping_twice_applies_once() -> None:
    def once(wrap: Callable[[Any], Any]) -> Callable[[], Any]:
        return lambda: wrap(v1.train.GradientDescentOptimizer(0.1)).minimize(model(L1(0.2)))

    twice = train(once(lambda optimizer: regularized(regularized(optimizer))))
    np.testing.assert_allclose(twice, train(once(regularized)), rtol=1e-12)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data, p: data + 0.01 * p, "0.01 +strength multiplied again"),
        (lambda data, p: data + 2 * p, "2 +applied 2 times"),
        (lambda data, p: data + p * p, "a penalty of a penalty"),
        (lambda data, p: data + p * v1.placeholder(tf.float64, ()), "depends on 'Placeholder"),
    ],
)
def test_what_the_loss_has_otherwise_is_refused(spoil: Any, words: str) -> None:
    with tf.Graph().as_default():
        loss = spoil(model(L1(0.2)), v1.losses.get_regularization_loss())
        operations = len(v1.get_default_graph().get_operations())
        with pytest.raises(
            AppliedTwiceError, match=f"'w' would be .* by the loss, and(.*\n)+.*{words}"
        ):
            regularized(v1.train.GradientDescentOptimizer(0.1)).minimize(loss)
        assert len(v1.get_default_graph().get_operations()) == operations


def test_a_loss_per_example_is_not_penalized_per_example() -> None:
    def per_example(total: bool) -> Callable[[], Any]:
        def build() -> Any:
            w = v1.get_variable("w", initializer=START, regularizer=L2(0.3))
            losses = tf.reduce_sum(tf.square(X @ tf.convert_to_tensor(w)), axis=1)
            loss = tf.reduce_sum(losses) if total else losses
            return regularized(v1.train.GradientDescentOptimizer(0.01)).minimize(loss)

        return build

    np.testing.assert_allclose(train(per_example(False)), train(per_example(True)), rtol=1e-12)


def test_each_optimizer_takes_the_penalties_of_what_it_updates() -> None:
    with tf.Graph().as_default():
        for name in ("ours", "theirs"):
            with v1.variable_scope(name, regularizer=L2(0.3)):
                v1.get_variable("w", initializer=START)
        ours, theirs = v1.trainable_variables()
        loss = tf.reduce_sum(tf.convert_to_tensor(ours)) + tf.reduce_sum(
            tf.convert_to_tensor(theirs)
        )
        optimizer = regularized(v1.train.GradientDescentOptimizer(0.1))
        ((gradient, _),) = optimizer.compute_gradients(loss, [ours])
        both = optimizer.compute_gradients(loss)
        scoped = regularized(v1.train.GradientDescentOptimizer(0.1), scope="ours")
        (_, (unscoped, _)) = scoped.compute_gradients(loss)
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            np.testing.assert_allclose(session.run(gradient), 1 + 0.6 * START, rtol=1e-12)
            for g, _ in both:
                np.testing.assert_allclose(session.run(g), 1 + 0.6 * START, rtol=1e-12)
            np.testing.assert_allclose(session.run(unscoped), np.ones_like(START))


def test_a_plan_in_place_of_the_collection() -> None:
    def with_plan() -> Any:
        data = model(v1.no_regularizer)
        plan = regularize(v1.trainable_variables(), {kernels: L1(0.2)})
        return regularized(v1.train.GradientDescentOptimizer(0.1), plan=plan).minimize(data)

    def with_collection() -> Any:
        return regularized(v1.train.GradientDescentOptimizer(0.1)).minimize(model(L1(0.2)))

    np.testing.assert_allclose(train(with_plan), train(with_collection), rtol=1e-12)


def test_a_plan_that_is_in_the_loss_already() -> None:
    with tf.Graph().as_default():
        data = model(None)
        plan = regularize(v1.trainable_variables(), L1(0.2))
        total = data + plan.penalty()
        optimizer = regularized(v1.train.GradientDescentOptimizer(0.1), plan=plan)
        optimizer.minimize(total)
        with pytest.raises(AppliedTwiceError, match="applied 2 times"):
            optimizer.minimize(total + plan.penalty())


def test_state_and_slots_are_those_of_the_optimizer() -> None:
    with tf.Graph().as_default():
        inner = v1.train.AdamOptimizer(0.1)
        optimizer = regularized(inner)
        step = v1.train.get_or_create_global_step()
        operation = optimizer.minimize(model(L1(0.2)), global_step=step)
        (w,) = [v for v in v1.trainable_variables() if v.op.name == "w"]
        assert optimizer.get_slot_names() == ["m", "v"]
        assert optimizer.get_slot(w, "m") is inner.get_slot(w, "m")
        assert [v.name for v in optimizer.variables()] == [v.name for v in inner.variables()]
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            session.run(operation)
            assert session.run(step) == 1


def test_half_precision_loss() -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        w = v1.get_variable("w", initializer=np.ones(3, np.float16), regularizer=L2(0.5))
        loss = tf.reduce_sum(tf.convert_to_tensor(w))
        ((gradient, _),) = regularized(v1.train.GradientDescentOptimizer(0.1)).compute_gradients(
            loss
        )
        session.run(v1.global_variables_initializer())
        np.testing.assert_array_equal(session.run(gradient), np.full(3, 2.0, np.float16))


def refused_as_loss(loss: Any, **kwargs: Any) -> Callable[[], Any]:
    return lambda: regularized(v1.train.GradientDescentOptimizer(0.1)).compute_gradients(
        loss, **kwargs
    )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: regularized(3), OptimizerError, "got a int; pass an optimizer of tf.compat.v1"),
        (
            lambda: regularized(v1.train.AdamOptimizer(), mode="decoupled"),
            ModeError,
            "there is no mode 'decoupled'; expected one of gradient, proximal",
        ),
        (refused_as_loss(lambda: 1.0), LossError, "got a function as the loss; pass a tensor"),
        (refused_as_loss(1.0, grad_loss=1.0), LossError, "pass the weighted sum as the loss"),
    ],
)
def test_what_is_refused(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with tf.Graph().as_default(), pytest.raises(error, match=f"(?i){message}"):
        call()


def test_weights_in_the_collection_are_refused() -> None:
    with tf.Graph().as_default():
        loss = model(None)
        v1.add_to_collection(KEY, v1.trainable_variables()[0])
        with pytest.raises(PenaltyError, match="'w': weights stand in the collection"):
            regularized(v1.train.GradientDescentOptimizer(0.1)).minimize(loss)


def test_partitioned_variables_are_penalized_as_a_whole() -> None:
    r = GroupLasso(0.3, groups=1)

    def build(partitioner: Any) -> tuple[Any, Any]:
        w = v1.get_variable(
            "w", initializer=tf.constant(START), partitioner=partitioner, regularizer=r
        )
        loss = tf.reduce_sum(tf.square(X @ tf.convert_to_tensor(w)))
        pairs = regularized(v1.train.GradientDescentOptimizer(0.1)).compute_gradients(loss)
        return [g for g, _ in pairs], audit(loss + v1.losses.get_regularization_loss())

    found = []
    for partitioner in (None, v1.fixed_size_partitioner(3)):
        with tf.Graph().as_default(), v1.Session() as session:
            gradients, report = build(partitioner)
            assert report.ok
            session.run(v1.global_variables_initializer())
            found.append(np.concatenate(session.run(gradients)))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-12)
