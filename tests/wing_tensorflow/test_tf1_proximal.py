"""Proximal training with a session: exact zeros, at the true minimiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from sklearn.linear_model import Lasso

from penalize import (
    L1,
    L2,
    AppliedTwiceError,
    GroupLasso,
    ModeError,
    NoProximalOperatorError,
    Orthogonal,
)
from penalize.tensorflow import contrib, regularize, regularized

v1 = tf.compat.v1
STRENGTH = 0.1

rng = np.random.default_rng(0)
X = rng.normal(size=(100, 8))
Y = X @ np.array([3.0, -2, 0, 0, 1.5, 0, 0, 0]) + 0.1 * rng.normal(size=100)
TRUE = Lasso(alpha=STRENGTH, fit_intercept=False, tol=1e-12).fit(X, Y).coef_


def data_loss(w: Any) -> Any:
    residual = tf.linalg.matvec(X, tf.convert_to_tensor(w)) - Y
    return 0.5 * tf.reduce_mean(tf.square(residual))


def decayed(rate: float) -> Any:
    """A rate that falls by halves: under a rate that falls in each step momentum lags behind."""
    step = tf.cast(v1.train.get_or_create_global_step(), tf.float32)
    return rate * 0.5 ** tf.floor(step / 1000)


OPTIMIZERS: dict[str, tuple[Callable[[], Any], int]] = {
    "gradient descent": (lambda: v1.train.GradientDescentOptimizer(0.1), 800),
    "momentum": (lambda: v1.train.MomentumOptimizer(0.02, 0.9), 800),
    "nesterov": (lambda: v1.train.MomentumOptimizer(0.02, 0.9, use_nesterov=True), 800),
    "Adam": (lambda: v1.train.AdamOptimizer(0.02), 3000),
    "Adagrad": (lambda: v1.train.AdagradOptimizer(0.5), 3000),
    "RMSProp": (lambda: v1.train.RMSPropOptimizer(decayed(0.02)), 4000),
    "RMSProp with momentum": (lambda: v1.train.RMSPropOptimizer(decayed(0.02), momentum=0.5), 4000),
}


def minimise(optimizer: Any, loss: Any, steps: int) -> np.ndarray:
    """The weight after so many steps."""
    operation = optimizer.minimize(loss, global_step=v1.train.get_or_create_global_step())
    (w,) = [v for v in v1.trainable_variables() if v.op.name == "w"]
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        for _ in range(steps):
            session.run(operation)
        return session.run(w)


def start(regularizer: Any, **arguments: Any) -> Any:
    return v1.get_variable("w", initializer=np.full(8, 0.5), regularizer=regularizer, **arguments)


@pytest.mark.parametrize(("optimizer", "steps"), OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_reaches_the_lasso(optimizer: Callable[[], Any], steps: int) -> None:
    with tf.Graph().as_default():
        w = start(L1(STRENGTH))
        found = minimise(regularized(optimizer(), mode="proximal"), data_loss(w), steps)
    np.testing.assert_allclose(found, TRUE, atol=1e-5)
    np.testing.assert_array_equal(found == 0, TRUE == 0)
    assert (TRUE == 0).sum() >= 4


@pytest.mark.parametrize("name", ["gradient descent", "Adam", "Adagrad", "RMSProp"])
def test_reaches_the_group_lasso(name: str) -> None:
    """KKT: ∇f_g = −λ√|g| w_g/‖w_g‖ for a group that stays, ‖∇f_g‖ ≤ λ√|g| for one that is zero."""
    optimizer, steps = OPTIMIZERS[name]
    groups = [[0, 1], [2, 3], [4, 5], [6, 7]]
    with tf.Graph().as_default():
        w = start(GroupLasso(STRENGTH, groups=groups))
        found = minimise(regularized(optimizer(), mode="proximal"), data_loss(w), steps)
    gradient = X.T @ (X @ found - Y) / 100
    limit = STRENGTH * np.sqrt(2)
    assert [bool(found[g].any()) for g in groups] == [True, False, True, False]
    for g in groups[::2]:
        direction = found[g] / np.linalg.norm(found[g])
        np.testing.assert_allclose(gradient[g], -limit * direction, atol=1e-5)
    for g in groups[1::2]:
        assert np.linalg.norm(gradient[g]) <= limit


Steps = Callable[[np.ndarray, Callable[[np.ndarray], np.ndarray]], np.ndarray]
"""(start, gradient of the data loss) → the weight after five proximal steps, in NumPy."""

EPS = 0.5  # so large that its place in the formula shows


def by_hand(update: Callable[..., tuple[np.ndarray, Any]]) -> Steps:
    """Five steps of an update that gives the new weight and its proximal step."""

    def run(w: np.ndarray, gradient: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        state: dict[str, np.ndarray] = {}
        for t in range(1, 6):
            w, step = update(w, gradient(w), state, t)
            w = np.sign(w) * np.maximum(np.abs(w) - step * STRENGTH, 0)
        return w

    return run


def adam(w: np.ndarray, g: np.ndarray, s: dict[str, Any], t: int) -> tuple[np.ndarray, Any]:
    s["m"] = 0.9 * s.get("m", 0.0) + 0.1 * g
    s["v"] = 0.9 * s.get("v", 0.0) + 0.1 * g * g
    rate = 0.05 * np.sqrt(1 - 0.9**t)
    denominator = np.sqrt(s["v"]) + EPS
    return w - rate / (1 - 0.9**t) * s["m"] / denominator, rate / denominator


def rmsprop(w: np.ndarray, g: np.ndarray, s: dict[str, Any], t: int) -> tuple[np.ndarray, Any]:
    s["v"] = 0.9 * s.get("v", 1.0) + 0.1 * g * g  # TensorFlow 1 begins with ones
    denominator = np.sqrt(s["v"] + EPS)
    s["m"] = 0.5 * s.get("m", 0.0) + 0.05 * g / denominator
    return w - s["m"], 0.05 / (1 - 0.5) / denominator


def adagrad(w: np.ndarray, g: np.ndarray, s: dict[str, Any], t: int) -> tuple[np.ndarray, Any]:
    s["v"] = s.get("v", 0.1) + g * g
    return w - 0.05 * g / np.sqrt(s["v"]), 0.05 / np.sqrt(s["v"])


def nesterov(w: np.ndarray, g: np.ndarray, s: dict[str, Any], t: int) -> tuple[np.ndarray, Any]:
    s["m"] = 0.9 * s.get("m", 0.0) + g
    return w - 0.01 * (g + 0.9 * s["m"]), 0.01 / (1 - 0.9)


FIVE_STEPS: dict[str, tuple[Callable[[], Any], Steps]] = {
    "Adam": (lambda: v1.train.AdamOptimizer(0.05, beta2=0.9, epsilon=EPS), by_hand(adam)),
    "RMSProp": (
        lambda: v1.train.RMSPropOptimizer(0.05, momentum=0.5, epsilon=EPS),
        by_hand(rmsprop),
    ),
    "Adagrad": (lambda: v1.train.AdagradOptimizer(0.05), by_hand(adagrad)),
    "nesterov": (
        lambda: v1.train.MomentumOptimizer(0.01, 0.9, use_nesterov=True),
        by_hand(nesterov),
    ),
}


@pytest.mark.parametrize("use_resource", [True, False])
@pytest.mark.parametrize(("optimizer", "steps"), FIVE_STEPS.values(), ids=FIVE_STEPS)
def test_five_steps_by_hand(optimizer: Callable[[], Any], steps: Steps, use_resource: bool) -> None:
    expected = steps(np.full(8, 0.5), lambda w: X.T @ (X @ w - Y) / 100)
    with tf.Graph().as_default():
        w = start(L1(STRENGTH), use_resource=use_resource)
        found = minimise(regularized(optimizer(), mode="proximal"), data_loss(w), 5)
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-7)


def test_the_loss_term_gives_no_zero() -> None:
    with tf.Graph().as_default():
        w = start(L1(STRENGTH))
        naive = data_loss(w) + v1.losses.get_regularization_loss()
        found = minimise(v1.train.AdamOptimizer(0.02), naive, 800)
    assert (found == 0).sum() == 0


def test_contribs_regularizers_and_reference_variables() -> None:
    with tf.Graph().as_default():
        w = start(contrib.layers.l1_regularizer(STRENGTH), use_resource=False)
        optimizer = regularized(v1.train.GradientDescentOptimizer(0.1), mode="proximal")
        found = minimise(optimizer, data_loss(w), 800)
    np.testing.assert_allclose(found, TRUE, atol=1e-9)


def one_step(build: Callable[[], Any]) -> list[np.ndarray]:
    with tf.Graph().as_default(), v1.Session() as session:
        operation = build()
        session.run(v1.global_variables_initializer())
        before = session.run(v1.trainable_variables())
        session.run(operation)
        return [before, session.run(v1.trainable_variables())]


W = np.random.default_rng(3).normal(size=(4, 3))


def quadratic(
    regularizer: Any, *, rate: float = 0.1, adam: bool = False, **arguments: Any
) -> Callable[[], Any]:
    """One proximal step of gradient descent, or of Adam, on ½‖w‖²."""

    def build() -> Any:
        w = v1.get_variable("w", initializer=tf.constant(W), regularizer=regularizer, **arguments)
        loss = 0.5 * tf.reduce_sum(tf.square(tf.convert_to_tensor(w)))
        inner = (v1.train.AdamOptimizer if adam else v1.train.GradientDescentOptimizer)(rate)
        return regularized(inner, mode="proximal").minimize(loss)

    return build


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_a_group_that_crosses_shards(axis: int | None) -> None:
    r = GroupLasso(6.0, groups=1)
    cut = None if axis is None else v1.fixed_size_partitioner(3, axis=axis)
    _, after = one_step(quadratic(r, partitioner=cut))
    expected = r.prox(0.9 * W, 0.1)
    whole = np.concatenate(after, axis or 0).reshape(4, 3)
    np.testing.assert_allclose(whole, expected, rtol=1e-6)
    assert 0 < (expected == 0).all(axis=0).sum() < 3


@pytest.mark.parametrize("axis", [0, 1])
def test_a_group_that_crosses_shards_under_a_step_per_element(axis: int) -> None:
    r = GroupLasso(6.0, groups=1)
    _, (whole,) = one_step(quadratic(r, adam=True))
    _, after = one_step(quadratic(r, adam=True, partitioner=v1.fixed_size_partitioner(3, axis)))
    np.testing.assert_allclose(np.concatenate(after, axis), whole, rtol=1e-12)
    assert 0 < (whole == 0).all(axis=0).sum() < 3


def test_two_penalties_of_one_weight_are_one_step() -> None:
    def build() -> Any:
        w = v1.get_variable("w", initializer=tf.constant(W))
        plan = regularize([w], {"w": L1(1.0) + L2(0.5)})
        loss = 0.5 * tf.reduce_sum(tf.square(tf.convert_to_tensor(w)))
        inner = v1.train.GradientDescentOptimizer(0.1)
        return regularized(inner, plan=plan, mode="proximal").minimize(loss)

    _, (after,) = one_step(build)
    np.testing.assert_allclose(after, (L1(1.0) + L2(0.5)).prox(0.9 * W, 0.1), rtol=1e-6)


def test_a_penalty_acts_where_the_data_gives_no_gradient() -> None:
    def build() -> Any:
        v1.get_variable("unused", initializer=tf.constant(W), regularizer=L1(1.0))
        w = v1.get_variable("w", initializer=tf.constant(W))
        loss = tf.reduce_sum(tf.convert_to_tensor(w))
        inner = v1.train.GradientDescentOptimizer(0.1)
        return regularized(inner, mode="proximal").minimize(loss)

    _, (unused, _) = one_step(build)
    np.testing.assert_allclose(unused, L1(1.0).prox(W, 0.1), rtol=1e-6)


def test_what_nobody_penalizes_stays_as_the_optimizer_has_it() -> None:
    """Without a gradient, momentum goes on for what is penalized, and not for anything else."""

    def after(mode: str | None) -> np.ndarray:
        with tf.Graph().as_default(), v1.Session() as session:
            w = v1.get_variable("w", initializer=tf.constant(W), regularizer=L1(0.1))
            b = v1.get_variable("b", initializer=tf.constant(W))
            optimizer: Any = v1.train.MomentumOptimizer(0.1, 0.9)
            optimizer = regularized(optimizer, mode=mode) if mode else optimizer
            both = tf.reduce_sum(tf.convert_to_tensor(w) * tf.convert_to_tensor(b))
            first, second = optimizer.minimize(both), optimizer.minimize(tf.reduce_sum(w + 0.0))
            session.run(v1.global_variables_initializer())
            before = session.run(b)
            session.run(first)
            one = session.run(b)
            session.run(second)
            assert abs(one - before).max() > 0
            return session.run(b) - one

    assert not after(None).any()
    assert not after("proximal").any()


def test_the_step_is_counted_and_the_collection_has_all_of_it() -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        w = v1.get_variable("w", initializer=tf.constant(W), regularizer=L1(1.0))
        count = v1.train.get_or_create_global_step()
        loss = 0.5 * tf.reduce_sum(tf.square(tf.convert_to_tensor(w)))
        optimizer = regularized(v1.train.GradientDescentOptimizer(0.1), mode="proximal")
        whole = optimizer.minimize(loss, global_step=count, name="train")
        assert v1.get_collection(v1.GraphKeys.TRAIN_OP) == [whole]
        assert whole.name == "train"
        session.run(v1.global_variables_initializer())
        session.run(v1.get_collection(v1.GraphKeys.TRAIN_OP))
        assert session.run(count) == 1
        np.testing.assert_allclose(session.run(w), L1(1.0).prox(0.9 * W, 0.1), rtol=1e-6)


def test_a_missing_gradient_is_refused() -> None:
    with tf.Graph().as_default():
        w = v1.get_variable("w", initializer=W, regularizer=L1(0.1))
        b = v1.get_variable("b", initializer=W)
        optimizer = regularized(v1.train.AdamOptimizer(), mode="proximal")
        count = len(v1.global_variables())
        with pytest.raises(ModeError, match="'w' has no gradient, so the optimizer takes no step"):
            optimizer.apply_gradients([(None, w), (tf.ones_like(b), b)])
        assert len(v1.global_variables()) == count  # no slot was made


def test_a_dead_unit_is_not_erased_by_an_adaptive_step() -> None:
    def build() -> Any:
        v1.get_variable("unused", initializer=tf.constant(W), regularizer=L1(1e-3))
        loss = tf.reduce_sum(tf.convert_to_tensor(v1.get_variable("w", initializer=W)))
        return regularized(v1.train.AdamOptimizer(0.01), mode="proximal").minimize(loss)

    (before, _), (unused, _) = one_step(build)
    assert 0 < abs(unused - before).max() < 0.11


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "a function": (
        quadratic(tf.nn.l2_loss),
        ModeError,
        "the penalty on 'w' is a function, and a proximal step needs more than",
    ),
    "no prox": (quadratic(Orthogonal(0.1)), NoProximalOperatorError, "on 'w' under Gradient"),
    "a constraint": (
        quadratic(L1(0.1), constraint=tf.abs),
        ModeError,
        "'w' has a constraint, which the proximal step would undo",
    ),
}


@pytest.mark.parametrize(("build", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(build: Any, error: type[Exception], message: str) -> None:
    with tf.Graph().as_default(), pytest.raises(error, match=f"(?i){message}"):
        build()


@pytest.mark.parametrize(
    "optimizer",
    [v1.train.FtrlOptimizer, v1.train.AdadeltaOptimizer, v1.train.ProximalGradientDescentOptimizer],
)
def test_optimizers_whose_step_is_not_known(optimizer: Any) -> None:
    with (
        tf.Graph().as_default(),
        pytest.raises(ModeError, match=f"that of {optimizer.__name__} is"),
    ):
        regularized(optimizer(0.1), mode="proximal")


def test_a_centered_rmsprop_is_refused() -> None:
    with tf.Graph().as_default(), pytest.raises(ModeError, match="that of a centered RMSProp"):
        regularized(v1.train.RMSPropOptimizer(0.1, centered=True), mode="proximal")


def test_a_sparse_gradient_is_refused() -> None:
    with tf.Graph().as_default():
        table = v1.get_variable("table", initializer=W, regularizer=L1(0.1))
        loss = tf.reduce_sum(tf.nn.embedding_lookup(table, [0, 2]))
        optimizer = regularized(v1.train.GradientDescentOptimizer(0.1), mode="proximal")
        with pytest.raises(ModeError, match="'table' has a sparse gradient"):
            optimizer.minimize(loss)


def test_shards_that_are_updated_apart_are_refused() -> None:
    with tf.Graph().as_default():
        shards = v1.get_variable(
            "w",
            initializer=tf.constant(W),
            regularizer=L1(0.1),
            partitioner=v1.fixed_size_partitioner(2),
        )
        plan = regularize([shards], L1(0.1))
        loss = tf.reduce_sum(tf.convert_to_tensor(shards))
        inner = v1.train.GradientDescentOptimizer(0.1)
        optimizer = regularized(inner, plan=plan, mode="proximal")
        with pytest.raises(ModeError, match="'w' is partitioned, and only some of its shards"):
            optimizer.minimize(loss, var_list=[next(iter(shards))])


def test_a_penalty_in_the_loss_and_in_the_step_is_refused() -> None:
    with tf.Graph().as_default():
        w = start(L1(STRENGTH))
        loss = data_loss(w) + v1.losses.get_regularization_loss()
        with pytest.raises(AppliedTwiceError, match="'w' would be applied twice: by the loss"):
            regularized(v1.train.AdamOptimizer(), mode="proximal").minimize(loss)
