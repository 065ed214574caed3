"""Half-space steps with a session: the rule around any optimizer of TensorFlow 1."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from halfspace_reference import HalfSpace
from sklearn.linear_model import Lasso

from penalize import L1, L2, GroupLasso, ModeError, NoKinkError, NuclearNorm
from penalize.tensorflow import contrib, regularize, regularized

v1 = tf.compat.v1
STRENGTH = 0.1

rng = np.random.default_rng(0)
X = rng.normal(size=(400, 8))
Y = X @ np.array([3.0, -2, 0, 0, 1.5, 0, 0, 0]) + rng.normal(size=400)
TRUE = Lasso(alpha=STRENGTH, fit_intercept=False, tol=1e-12).fit(X, Y).coef_
GROUPS = [[0, 1], [2, 3], [4, 5], [6, 7]]
PENALTY = L1(STRENGTH) + GroupLasso(STRENGTH, groups=GROUPS) + L2(0.05)
ROOT = STRENGTH * 2**0.5


def start(regularizer: Any, **arguments: Any) -> Any:
    made = v1.constant_initializer(0.5)
    return v1.get_variable("w", [8], tf.float64, made, regularizer=regularizer, **arguments)


def training(optimizer: Any, w: Any) -> tuple[Any, Any]:
    """The operation of one step on the rows that are fed, and where they are fed."""
    rows = v1.placeholder(tf.int64, [None])
    x, y = tf.gather(X, rows), tf.gather(Y, rows)
    residual = tf.linalg.matvec(x, tf.convert_to_tensor(w)) - y
    loss = 0.5 * tf.reduce_mean(tf.square(residual))
    return optimizer.minimize(loss, global_step=v1.train.get_or_create_global_step()), rows


def batches(steps: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, len(X), (steps, 32))


@pytest.mark.parametrize("use_resource", [True, False])
@pytest.mark.parametrize("shards", [1, 3])
def test_against_a_plain_loop(use_resource: bool, shards: int) -> None:
    """With momentum; also of a variable in parts, and of one that is read as an alias."""
    rule = HalfSpace(
        np.full(8, 0.5),
        0.9,
        element=STRENGTH,
        groups=GROUPS,
        sizes=[ROOT] * 4,
        smooth=lambda w: 0.1 * w,
    )
    w, speed, expected = np.full(8, 0.5), np.zeros(8), []
    for i in batches(40):
        g = X[i].T @ (X[i] @ w - Y[i]) / len(i)
        speed = 0.9 * speed + rule.before(w, g)
        w = rule.after(w, w - 0.02 * speed)
        expected.append(w)
    found = []
    with tf.Graph().as_default():
        cut = v1.fixed_size_partitioner(shards) if shards > 1 else None
        variable = start(None, use_resource=use_resource, partitioner=cut)
        optimizer = regularized(
            v1.train.MomentumOptimizer(0.02, 0.9),
            plan=regularize([variable], {"w": PENALTY}),
            mode="halfspace",
            average=0.9,
        )
        step, rows = training(optimizer, variable)
        whole = tf.convert_to_tensor(variable)
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            for i in batches(40):
                session.run(step, {rows: i})
                found.append(session.run(whole))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(np.array(found) == 0, np.array(expected) == 0)
    assert 0 < (np.array(found) == 0).sum() < 320


def test_the_right_zeros_on_mini_batches_and_after_a_restart(tmp_path: Path) -> None:
    """The averages are among the variables that a saver saves; a proximal step has other zeros."""

    def run(mode: str, stops: bool) -> np.ndarray:
        with tf.Graph().as_default():
            w = start(L1(STRENGTH))
            rate = 0.02 * (1 - tf.cast(v1.train.get_or_create_global_step(), tf.float32) / 1500)
            optimizer = v1.train.GradientDescentOptimizer(rate)
            how = {"average": 0.99} if mode == "halfspace" else {}
            step, rows = training(regularized(optimizer, mode=mode, **how), w)
            saver, found = v1.train.Saver(), []
            with v1.Session() as session:
                session.run(v1.global_variables_initializer())
                for number, i in enumerate(batches(1500)):
                    if stops and number == 700:
                        saver.save(session, str(tmp_path / "w"))
                        session.run(v1.global_variables_initializer())
                        saver.restore(session, str(tmp_path / "w"))
                    session.run(step, {rows: i})
                    found.append(session.run(w))
        return np.array(found)

    found = run("halfspace", True)
    assert ((found[-200:] == 0) == (TRUE == 0)).all(1).mean() > 0.95
    np.testing.assert_array_equal(found, run("halfspace", False))
    assert ((run("proximal", False)[-200:] == 0) == (TRUE == 0)).all(1).mean() < 0.5


def test_a_schedule_whose_first_strength_is_0() -> None:
    def run(is_on: bool) -> np.ndarray:
        with tf.Graph().as_default():
            w = start(None)
            optimizer: Any = v1.train.AdamOptimizer(0.05)
            if is_on:
                scheduled = L1(STRENGTH) * (lambda step: tf.where(step < 5, 0.0, 1.0))
                plan = regularize([w], {"w": scheduled})
                optimizer = regularized(optimizer, plan=plan, mode="halfspace")
            step, rows = training(optimizer, w)
            with v1.Session() as session:
                session.run(v1.global_variables_initializer())
                for i in batches(5):
                    session.run(step, {rows: i})
                return session.run(w)

    np.testing.assert_allclose(run(True), run(False), rtol=1e-6)


@pytest.mark.parametrize(
    ("act", "error", "sentence"),
    [
        (lambda o: regularized(o, mode="halfspace", average=1.0), ModeError, "from 0 to below 1"),
        (lambda o: regularized(o, average=0.9), ModeError, "average=0.9 is an option of mode="),
        (
            lambda o: regularized(v1.train.FtrlOptimizer(0.1), mode="halfspace"),
            ModeError,
            "computes the weights anew from sums that it keeps",
        ),
    ],
)
def test_what_is_refused_at_once(
    act: Callable[[Any], Any], error: type[Exception], sentence: str
) -> None:
    with tf.Graph().as_default(), pytest.raises(error, match=sentence):
        act(v1.train.GradientDescentOptimizer(0.1))


@pytest.mark.parametrize(
    ("regularizer", "error", "sentence"),
    [
        (L2(0.1), NoKinkError, "it has no kink at 0"),
        (NuclearNorm(0.1), NoKinkError, "what becomes 0 is singular values"),
        (contrib.layers.l1_regularizer(0.1), None, ""),
        (lambda w: tf.reduce_sum(w), ModeError, "a half-space step needs more than its value"),
    ],
)
def test_what_is_refused_in_minimize(
    regularizer: Any, error: type[Exception] | None, sentence: str
) -> None:
    with tf.Graph().as_default():
        w = v1.get_variable("w", initializer=np.ones((4, 2)), regularizer=regularizer)
        optimizer = regularized(v1.train.GradientDescentOptimizer(0.1), mode="halfspace")
        loss = tf.reduce_sum(tf.square(w))
        if error is None:
            optimizer.minimize(loss)
            assert len(optimizer.variables()) == 2
            return
        with pytest.raises(error, match=sentence):
            optimizer.minimize(loss)
