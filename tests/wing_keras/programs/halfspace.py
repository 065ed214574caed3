"""``mode="halfspace"``: the rule around the optimizer, on mini-batches."""

from __future__ import annotations

import copy
import tempfile
from typing import Any

import keras
import numpy as np
from halfspace_reference import HalfSpace
from keras import layers, optimizers
from reference import raises

from penalize import L1, L2, GroupLasso, ModeError, ModelError, NoKinkError, NuclearNorm
from penalize.keras import regularize

RNG = np.random.default_rng(0)
X = RNG.normal(size=(320, 6)).astype("float32")
TRUE = np.array([[1.0, 0.5, 0, 0, 0, 0], [-1.0, 0, 0.1, 0, 0, 0]]).T
Y = (X @ TRUE + RNG.normal(size=(320, 2))).astype("float32")
START = RNG.normal(size=(6, 2)).astype("float32")
PENALTY = L1(0.05) + GroupLasso(0.05, groups=0) + L2(0.01)


def linear(optimizer: Any) -> keras.Model:
    model = keras.Sequential([keras.Input((6,)), layers.Dense(2, use_bias=False, name="w")])
    model.compile(optimizer, "mse")
    model.set_weights([START])
    return model


def weight(model: keras.Model) -> np.ndarray:
    return np.asarray(model.get_weights()[0], "float64")


def steps(model: keras.Model, numbers: range) -> list[np.ndarray]:
    found = []
    for i in numbers:
        rows = slice(32 * (i % 10), 32 * (i % 10) + 32)
        model.train_on_batch(X[rows], Y[rows])
        found.append(weight(model))
    return found


def by_hand(count: int) -> list[np.ndarray]:
    """With momentum, in NumPy."""
    groups = [[2 * i, 2 * i + 1] for i in range(6)]
    w = START.astype("float64").reshape(-1)
    sizes = [0.05 * 2**0.5] * 6
    rule = HalfSpace(w, 0.9, element=0.05, groups=groups, sizes=sizes, smooth=lambda w: 0.02 * w)
    speed, found = 0 * w, []
    for i in range(count):
        rows = slice(32 * (i % 10), 32 * (i % 10) + 32)
        x, y = X[rows].astype("float64"), Y[rows]
        g = x.T @ (x @ w.reshape(6, 2) - y) * 2 / y.size
        speed = 0.9 * speed - 0.05 * rule.before(w, g.reshape(-1))
        w = rule.after(w, w + speed)
        found.append(w.reshape(6, 2))
    return found


def check_a_plain_loop_agrees() -> list[np.ndarray]:
    model = linear(optimizers.SGD(0.05, momentum=0.9))
    regularize(model, PENALTY, mode="halfspace", average=0.9)
    found, expected = np.array(steps(model, range(40))), np.array(by_hand(40))
    np.testing.assert_allclose(found, expected, atol=2e-5)
    np.testing.assert_array_equal(found == 0, expected == 0)
    assert 0 < (found == 0).sum() < found.size
    return [found[-1]]


def check_an_optimizer_whose_step_is_not_known() -> None:
    model = linear(optimizers.Lion(0.01))
    plan = regularize(model, L1(0.1), mode="halfspace", average=0.95)
    found = steps(model, range(150))[-1]
    assert (found[4:] == 0).any()
    assert found[0, 0] > 0.3
    count = len(model.optimizer.variables)
    plan.detach()
    assert len(model.optimizer.variables) == count - 2
    found = steps(model, range(2))[-1]
    assert (found != 0).all()


def check_what_is_refused() -> None:
    model = linear(optimizers.SGD(0.05))
    raises(NoKinkError, "it has no kink at 0", lambda: regularize(model, L2(0.1), mode="halfspace"))
    raises(
        NoKinkError,
        "what becomes 0 is singular values",
        lambda: regularize(model, NuclearNorm(0.1), mode="halfspace"),
    )
    raises(
        ModeError,
        "average=1.0; expected a number from 0 to below 1",
        lambda: regularize(model, L1(0.1), mode="halfspace", average=1.0),
    )
    raises(
        ModeError,
        "average=0.9 is an option of mode='halfspace'",
        lambda: regularize(model, L1(0.1), average=0.9),
    )
    for optimizer, sentence in (
        (optimizers.SGD(0.05, clipnorm=1.0), "is not right under clipnorm=1.0"),
        (optimizers.Adam(0.05, use_ema=True), "is not right under use_ema=True"),
        (optimizers.Ftrl(0.05), "Ftrl computes them anew"),
    ):
        other = linear(optimizer)
        raises(ModeError, sentence, lambda m=other: regularize(m, L1(0.1), mode="halfspace"))
    bare = keras.Sequential([keras.Input((6,)), layers.Dense(2)])
    raises(ModelError, "compile it first", lambda: regularize(bare, L1(0.1), mode="halfspace"))
    held = keras.Sequential(
        [keras.Input((6,)), layers.Dense(2, kernel_constraint=keras.constraints.NonNeg())]
    )
    held.compile("sgd", "mse")
    raises(ModeError, "has the constraint", lambda: regularize(held, L1(0.1), mode="halfspace"))


def check_a_model_that_is_compiled_anew() -> None:
    """Its new optimizer has no half-space step, and must not train without one."""
    model = linear(optimizers.SGD(0.05))
    plan = regularize(model, L1(0.1), mode="halfspace")
    model.compile(optimizers.Adam(0.05), "mse")
    raises(ModeError, "is stepped by another optimizer", lambda: model.train_on_batch(X, Y))
    plan.detach()
    regularize(model, L1(0.1), mode="halfspace")
    model.train_on_batch(X, Y)


def planned(model: keras.Model, rules: Any = PENALTY, average: float = 0.9) -> keras.Model:
    regularize(model, rules, mode="halfspace", average=average)
    return model


def check_going_on_from_a_file() -> None:
    """A model that is loaded has no plan yet; it has the averages when its weights are loaded."""
    model = planned(linear(optimizers.SGD(0.05, momentum=0.9)))
    with tempfile.TemporaryDirectory() as folder:
        whole, weights = f"{folder}/model.keras", f"{folder}/model.weights.h5"
        saving = keras.callbacks.ModelCheckpoint(weights, save_weights_only=True)
        model.fit(X, Y, shuffle=False, epochs=2, verbose=0, callbacks=[saving])
        model.save(whole)
        expected = np.array(steps(model, range(25)))
        loaded = planned(keras.models.load_model(whole))
        assert not np.array_equal(steps(loaded, range(25)), expected)  # they began anew
        for path in (whole, weights):
            loaded.load_weights(path)
            np.testing.assert_array_equal(steps(loaded, range(25)), expected)
        assert (expected[-1] == 0).any()


def check_a_copy_goes_on() -> None:
    model = planned(linear(optimizers.SGD(0.05, momentum=0.9)), L1(0.3))
    steps(model, range(20))
    twin = copy.deepcopy(model)
    found, expected = steps(twin, range(20, 40)), steps(model, range(20, 40))
    np.testing.assert_array_equal(found, expected)
    assert (found[-1] == 0).any()
