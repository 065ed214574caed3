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
    ModelError,
    NeverAppliedWarning,
    NoMatchError,
    OptimizerError,
    PenaltyError,
    kernels,
    warmup,
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


UNSEEN: dict[str, Callable[[Any], Any]] = {
    "times a placeholder": lambda d: d + _penalty() * v1.placeholder(tf.float64, ()),
    "in tf.cond": lambda d: tf.cond(d > 0, lambda: d + _penalty(), lambda: d),
    "in tf.function": lambda d: tf.function(lambda: d + _penalty())(),
    "in a loop": lambda d: tf.while_loop(
        lambda i, s: i < 1, lambda i, s: (i + 1, s + _penalty()), (0, d)
    )[1],
    "in tf.map_fn": lambda d: tf.reduce_sum(tf.map_fn(lambda x: x + _penalty(), d[None])),
}


def _penalty() -> Any:
    return v1.losses.get_regularization_loss()


@pytest.mark.parametrize("mode", ["gradient", "proximal"])
@pytest.mark.parametrize("loss", UNSEEN.values(), ids=UNSEEN)
def test_what_cannot_be_measured_is_no_zero(loss: Callable[[Any], Any], mode: str) -> None:
    with tf.Graph().as_default():
        total = loss(model(L1(0.2)))
        (row,) = audit(total)
        assert np.isnan(row.factor)
        with pytest.raises(LossError, match=r"penalty on 'w' is not known .*leave the penalties"):
            regularized(v1.train.GradientDescentOptimizer(0.1), mode=mode).minimize(total)


@pytest.mark.parametrize("kind", ["cond", "function"])
def test_the_penalty_of_a_plan_inside_of_a_function(kind: str) -> None:
    with tf.Graph().as_default():
        data = model(None)
        plan = regularize(v1.trainable_variables(), L1(0.2))
        total = {
            "cond": lambda: tf.cond(data > 0, lambda: data + plan.penalty(), lambda: data),
            "function": lambda: tf.function(lambda: data + plan.penalty())(),
        }[kind]()
        assert np.isnan(audit(total, plan)[0].factor)
        with pytest.raises(LossError, match=r"inside of a function, such as a branch of tf\.cond"):
            regularized(v1.train.AdamOptimizer(), plan=plan).minimize(total)


def test_a_graph_that_was_exported_and_imported() -> None:
    """The collection then holds tensors, and the loss uses others of the same scope."""
    with tf.Graph().as_default():
        total = tf.identity(model(L2(0.3)) + _penalty(), name="total")
        meta = v1.train.export_meta_graph()
    with tf.Graph().as_default() as graph:
        v1.train.import_meta_graph(meta)
        total = graph.get_tensor_by_name("total:0")
        assert [(row.name, row.factor) for row in audit(total)] == [("w", 1.0)]
        assert regularized(v1.train.AdamOptimizer()).total_loss(total) is total


def test_a_regularizer_that_keeps_its_tensor() -> None:
    kept: list[Any] = []

    def memoized(w: Any) -> Any:
        if not kept:
            kept.append(L2(0.3)(w))
        return kept[0]

    with tf.Graph().as_default():
        data = model(memoized)
        assert [row.factor for row in audit(data + _penalty())] == [1.0]
        assert [row.factor for row in audit(data)] == [0.0]


def test_the_same_thing_entered_twice_is_one() -> None:
    with tf.Graph().as_default():
        data = model(L2(0.3))
        (promise,) = v1.get_collection(KEY)
        v1.add_to_collection(KEY, promise)
        total = regularized(v1.train.AdamOptimizer()).total_loss(data)
        assert [row.factor for row in audit(total)] == [1.0]


@pytest.mark.parametrize("call", ["audit", "regularized"])
def test_a_scope_that_holds_nothing_is_refused(call: str) -> None:
    with tf.Graph().as_default():
        v1.get_variable("generator/w", initializer=START, regularizer=L2(0.3))
        loss = tf.constant(1.0)
        calls: dict[str, Callable[[Any], Any]] = {
            "audit": lambda scope: audit(loss, scope=scope, strict=True),
            "regularized": lambda scope: regularized(
                v1.train.AdamOptimizer(), scope
            ).compute_gradients(loss),
        }
        with pytest.raises(NoMatchError, match=r"named\('genrator'\) .*nearest names are 'gener"):
            calls[call]("genrator")
        with v1.variable_scope("generator") as scope:
            assert [r.name for r in audit(loss, scope=scope)] == ["generator/w"]
        assert len(audit(loss, scope="")) == 1


def test_a_scope_beside_a_plan_is_refused() -> None:
    with tf.Graph().as_default():
        model(None)
        plan = regularize(v1.trainable_variables(), L2(0.3))
        with pytest.raises(ModeError, match="The scope 'w' is of the collection, and a plan was"):
            regularized(v1.train.AdamOptimizer(), "w", plan=plan)


def test_a_loss_scale_belongs_inside() -> None:
    def scaled(inner: Any) -> Any:
        scale = v1.mixed_precision.FixedLossScale(128)
        return v1.mixed_precision.MixedPrecisionLossScaleOptimizer(inner, scale)

    with tf.Graph().as_default(), v1.Session() as session:
        w = v1.get_variable("w", initializer=START.astype(np.float32), regularizer=L2(0.3))
        loss = tf.reduce_sum(tf.convert_to_tensor(w))
        inner = v1.train.GradientDescentOptimizer(0.1)
        with pytest.raises(OptimizerError, match=r"write regularized\(MixedPrecisionLossScaleOpt"):
            scaled(regularized(inner)).compute_gradients(loss)
        ((right, _),) = regularized(scaled(inner)).compute_gradients(loss)
        session.run(v1.global_variables_initializer())
        np.testing.assert_allclose(session.run(right), 1 + 0.6 * START, rtol=1e-6)


def test_what_is_minimized_can_be_audited() -> None:
    with tf.Graph().as_default():
        loss = model(L2(0.3))
        optimizer = regularized(v1.train.GradientDescentOptimizer(0.1))
        assert not audit(loss).ok
        assert audit(optimizer.total_loss(loss), strict=True).ok


def test_eager_variables_are_refused_in_a_graph() -> None:
    plan = regularize([tf.Variable(START, name="w")], L2(0.3))
    with tf.Graph().as_default():
        optimizer = regularized(v1.train.AdamOptimizer(), plan=plan)
        with pytest.raises(ModelError, match="'w' is an eager variable, and is asked for in a gra"):
            optimizer.minimize(model(None))


def test_variables_of_another_graph_are_refused() -> None:
    """Nothing would be penalized, without a word."""
    with tf.Graph().as_default():
        v1.get_variable("w", initializer=START)
        plan = regularize(v1.trainable_variables(), L2(0.3))
    with tf.Graph().as_default():
        optimizer = regularized(v1.train.AdamOptimizer(), plan=plan)
        for use in (lambda: optimizer.minimize(model(None)), plan.penalty):
            with pytest.raises(ModelError, match="'w' is a variable of another graph than the one"):
                use()
    with pytest.raises(ModelError, match="'w' is a variable of a graph, and is asked for outside"):
        plan.penalty()


@pytest.mark.parametrize(
    "kind", [v1.train.ProximalGradientDescentOptimizer, v1.train.ProximalAdagradOptimizer]
)
@pytest.mark.parametrize(("name", "r"), [("l1", L1(0.3)), ("l2", L1(0.1) + L2(0.3))])
def test_an_optimizer_that_regularizes_by_itself(kind: Any, name: str, r: Any) -> None:
    argument = f"{name}_regularization_strength"
    with tf.Graph().as_default():
        data = model(r)
        with pytest.raises(
            AppliedTwiceError, match=f"'w' .*by the {argument} of Proximal.*Set {argument}=0.0"
        ):
            regularized(kind(0.1, **{argument: 0.5})).minimize(data)
        regularized(kind(0.1)).compute_gradients(data)


@pytest.mark.parametrize("given", ["w", None])
def test_what_is_no_variable_in_the_list(given: Any) -> None:
    with tf.Graph().as_default():
        data = model(L2(0.3))
        if given is None:
            cut = v1.fixed_size_partitioner(2)
            given = v1.get_variable("cut", [4, 2], partitioner=cut)
        with pytest.raises(
            OptimizerError, match=r"(?i)var_list has a (str|Part.*) in it; pass variables"
        ):
            regularized(v1.train.AdamOptimizer()).minimize(data, var_list=[given])


def test_what_only_some_optimizers_have() -> None:
    with tf.Graph().as_default():
        inner = v1.train.SyncReplicasOptimizer(v1.train.GradientDescentOptimizer(0.1), 1)
        optimizer = regularized(inner)
        optimizer.minimize(model(L2(0.3)), global_step=v1.train.get_or_create_global_step())
        assert optimizer.make_session_run_hook(True) is not None
        with pytest.raises(AttributeError, match="no_such"):
            _ = optimizer.no_such


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
            lambda: regularized(v1.train.AdamOptimizer(), plan={kernels: L2(0.1)}),
            OptimizerError,
            "got a dict as the plan; pass what penalize.tensorflow.regularize",
        ),
        (
            lambda: regularized(v1.train.AdamOptimizer(), L2(0.1)),
            OptimizerError,
            "got a L2 as the scope; pass the name of a scope",
        ),
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


@pytest.mark.parametrize("use_resource", [True, False])
@pytest.mark.parametrize("mode", ["gradient", "proximal"])
def test_a_schedule_that_nobody_advances(mode: str, use_resource: bool) -> None:
    """A warm-up would stay at its beginning, and the penalty at 0."""

    def minimized(advanced: Callable[[Any], Any], global_step: Any = None) -> None:
        with tf.Graph().as_default():
            v1.get_variable_scope().set_use_resource(use_resource)
            loss = model(None, use_resource=use_resource)
            step = v1.train.get_or_create_global_step()
            advanced(step)
            plan = regularize(v1.trainable_variables(), L1(0.3) * warmup(5))
            optimizer = regularized(v1.train.GradientDescentOptimizer(0.1), plan=plan, mode=mode)
            optimizer.minimize(loss, global_step=step if global_step else None)

    with pytest.warns(NeverAppliedWarning, match="nothing advances the global step: it stays"):
        minimized(lambda step: None)
    minimized(lambda step: v1.assign_add(step, 1))
    minimized(lambda step: None, global_step=True)
