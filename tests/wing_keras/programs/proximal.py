"""``mode="proximal"``: the constraint slot, with the step that the optimizer really took."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from fitting import fit, network, same, weights
from keras import layers, optimizers
from reference import raises

from penalize import L1, L2, GroupLasso, ModeError, ModelError, NoProximalOperatorError
from penalize.keras import regularize
from penalize.keras.steps import step_taken

RNG = np.random.default_rng(0)
FEATURES, _ = np.linalg.qr(RNG.normal(size=(40, 8)))
FEATURES = (FEATURES * np.sqrt(40)).astype("float32")  # the Gram matrix is 40 times the identity
TRUE = np.array([2.0, -1.5, 0.8, 0, 0, 0, 0, 0], "float32")
TARGETS = (FEATURES @ TRUE + 0.1 * RNG.normal(size=40))[:, None].astype("float32")
STRENGTH = 0.4

KNOWN = {
    "sgd": lambda: optimizers.SGD(0.1),
    "momentum": lambda: optimizers.SGD(0.05, momentum=0.9),
    "nesterov": lambda: optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "adam": lambda: optimizers.Adam(0.05),
    "amsgrad": lambda: optimizers.Adam(0.05, amsgrad=True),
    "adamw": lambda: optimizers.AdamW(0.05, weight_decay=0.0),
    "nadam": lambda: optimizers.Nadam(0.05),
    "adamax": lambda: optimizers.Adamax(0.05),
    "adagrad": lambda: optimizers.Adagrad(0.5),
    "rmsprop": lambda: optimizers.RMSprop(0.02),
    "rmsprop momentum": lambda: optimizers.RMSprop(0.005, momentum=0.9),
}


def number(x: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(x), "float64")


def linear(optimizer: Any, **compiled: Any) -> keras.Model:
    model = keras.Sequential([keras.Input((8,)), layers.Dense(1, use_bias=False, name="w")])
    model.compile(optimizer, "mse", **compiled)
    model.set_weights([np.full((8, 1), 0.3, "float32")])
    return model


def minimiser(strength: float = STRENGTH) -> np.ndarray:
    """Of mean squares + strength·‖w‖₁ with orthogonal features: soft-thresholded least squares."""
    least_squares = FEATURES.T.astype("float64") @ TARGETS / 40
    return np.sign(least_squares) * np.maximum(np.abs(least_squares) - strength / 2, 0)


def check_the_step_is_the_factor_of_a_constant_gradient() -> None:
    """Under a gradient that does not change, each update is the step times the gradient."""
    gradient = np.array([0.5, -2.0, 0.01], "float32")
    for name, make in KNOWN.items():
        optimizer = make()
        variable = keras.Variable(np.zeros(3, "float32"))
        seen: list[np.ndarray] = []

        def observe(v: Any, optimizer: Any = optimizer, seen: Any = seen) -> Any:
            factor, denominator = step_taken(optimizer, v)
            seen.append(number(factor / (1.0 if denominator is None else denominator)))
            return v.value + 0

        variable.constraint = observe
        optimizer.build([variable])
        for _ in range(120):
            before = number(variable)
            optimizer.apply([keras.ops.convert_to_tensor(gradient)])
        moved = before - number(variable)
        np.testing.assert_allclose(moved, seen[-1] * gradient, rtol=2e-3, err_msg=name)
        assert len(seen) == 120


def check_zeros_are_exact_and_the_minimiser_is_the_lasso() -> None:
    expected = minimiser()
    assert (expected == 0).sum() == 5
    for name in ("momentum", "adam", "rmsprop"):
        model = linear(KNOWN[name]())
        plan = regularize(model, L1(STRENGTH), mode="proximal")
        assert number(sum(model.losses)) == 0
        assert model.layers[0].kernel_regularizer is None
        for step in range(400):
            if name != "momentum" and step in (200, 300):  # as a callback would: no new trace
                model.optimizer.learning_rate = float(number(model.optimizer.learning_rate)) / 10
            model.train_on_batch(FEATURES, TARGETS)
        found = number(model.layers[0].kernel)
        np.testing.assert_array_equal(found == 0, expected == 0, err_msg=name)
        np.testing.assert_allclose(found, expected, atol=2e-4, err_msg=name)
        assert plan.mode == "proximal"


def check_the_naive_threshold_misses_the_minimiser() -> None:
    """What a constraint of lr·λ gives under momentum: the test above could fail."""
    model = linear(KNOWN["momentum"]())
    model.layers[0].kernel.constraint = lambda w: L1(STRENGTH).prox(w, 0.05)
    for _ in range(200):
        model.train_on_batch(FEATURES, TARGETS)
    assert np.abs(number(model.layers[0].kernel) - minimiser()).max() > 0.1


def check_a_schedule_is_followed() -> None:
    """Each update is checked against the formula, with the rate of that step."""
    schedule = optimizers.schedules.ExponentialDecay(0.2, 1, 0.5)
    model = linear(optimizers.SGD(schedule))
    regularize(model, L1(STRENGTH), mode="proximal")
    expected = number(model.layers[0].kernel)
    for step in range(4):
        rate = 0.2 * 0.5**step
        model.train_on_batch(FEATURES, TARGETS)
        gradient = 2 * FEATURES.T @ (FEATURES @ expected - TARGETS) / 40
        expected = L1(STRENGTH).prox(expected - rate * gradient, rate)
        np.testing.assert_allclose(number(model.layers[0].kernel), expected, atol=1e-5)


def check_proximal_training_agrees() -> list[list[float]]:
    """Compared between the backends by the test. The model is traced first."""
    model = network(optimizer=optimizers.Adam(0.05))
    fit(model)
    plan = regularize(model, {"first": L1(0.3) + L2(0.01), "second": L1(0.1)}, mode="proximal")
    fit(model, epochs=8)
    zeros = sum(int((w == 0).sum()) for w in weights(model))
    assert zeros > 0
    plan.detach()
    assert model.layers[0].kernel.constraint is None
    before = weights(model)
    fit(model)
    assert sum(int((w == 0).sum()) for w in weights(model)) < zeros
    return [w.ravel().tolist() for w in before]


def check_group_lasso_agrees() -> list[list[float]]:
    """Compared between the backends by the test. Whole groups vanish."""
    found = []
    for optimizer in (optimizers.SGD(0.1), optimizers.Adam(0.02)):
        model = network(optimizer=optimizer)
        regularize(model, {"first": GroupLasso(0.05, groups="inputs")}, mode="proximal")
        fit(model, epochs=30)
        rows = (number(model.layers[0].kernel) == 0).all(axis=1)
        assert 0 < rows.sum() < 6
        found += [w.ravel().tolist() for w in weights(model)]
    return found


def check_the_minimiser_is_the_group_lasso() -> None:
    """Of mean squares + λ√2 Σ_g ‖w_g‖: with orthogonal features each group is shrunk alone."""
    least_squares = FEATURES.T.astype("float64") @ TARGETS / 40
    groups = np.arange(8).reshape(4, 2)
    r = GroupLasso(STRENGTH, groups=groups.tolist())
    expected = r.prox(least_squares, 0.5)
    assert [bool(expected[g].any()) for g in groups] == [True, True, False, False]
    for name in ("sgd", "adam", "adamax"):
        model = linear(KNOWN[name]())
        regularize(model, {"w": r}, mode="proximal")
        for step in range(400):
            if name != "sgd" and step in (200, 300):
                model.optimizer.learning_rate = float(number(model.optimizer.learning_rate)) / 10
            model.train_on_batch(FEATURES, TARGETS)
        found = number(model.layers[0].kernel)
        np.testing.assert_array_equal(found == 0, expected == 0, err_msg=name)
        np.testing.assert_allclose(found, expected, atol=2e-4, err_msg=name)


def check_a_declared_penalty_is_not_doubled() -> None:
    plain = network(optimizer=optimizers.SGD(0.1))
    declared = network(keras.regularizers.L1(0.05), optimizer=optimizers.SGD(0.1))
    regularize(plain, L1(0.05), mode="proximal")
    plan = regularize(declared, mode="proximal")
    assert number(sum(declared.losses)) == 0
    for model in (plain, declared):
        fit(model)
    same(weights(plain), weights(declared), atol=0)
    plan.detach()
    assert number(sum(declared.losses)) > 0


def check_a_model_that_is_compiled_anew() -> None:
    model = network(optimizer=optimizers.SGD(0.1))
    regularize(model, L1(0.1), mode="proximal")
    fit(model)
    model.compile(optimizers.Lion(0.1), "mse")
    raises(ModeError, "that of Lion is not known", lambda: fit(model))
    model.compile(optimizers.Adam(0.05), "mse")
    fit(model, epochs=8)
    assert (number(model.layers[0].kernel) == 0).any()


def check_another_optimizer_is_refused() -> None:
    model = network(optimizer=optimizers.SGD(0.1))
    regularize(model, L1(0.1), mode="proximal")
    other = keras.Sequential([keras.Input((6,)), model])
    other.compile(optimizers.SGD(0.1), "mse")
    raises(
        ModeError,
        "'first.kernel' is stepped by an optimizer (SGD) that is not the one",
        lambda: fit(other),
    )


def check_what_is_not_exact_is_refused() -> None:
    def refused(optimizer: Any, *parts: str, regularizer: Any = None) -> None:
        model = network(optimizer=optimizer)
        rules = L1(0.1) if regularizer is None else regularizer
        kinds = ModeError, NoProximalOperatorError
        for part in parts:
            raises(kinds, part, lambda: regularize(model, rules, mode="proximal"))
        assert model.layers[0].kernel.constraint is None

    class Mine(optimizers.SGD):
        def apply(self, grads: Any, trainable_variables: Any = None) -> None:
            super().apply([2 * g for g in grads], trainable_variables)

    class Clipping(optimizers.Adam):
        def _clip_gradients(self, grads: Any) -> Any:
            return [0.1 * g for g in grads]

    class Named(optimizers.Adam):
        """Another name and configuration, and Keras' steps."""

        def get_config(self) -> Any:
            return super().get_config()

    regularize(network(optimizer=Named()), L1(0.1), mode="proximal")
    refused(optimizers.Lion(), "that of Lion is not known", "use one of SGD, Adam", "halfspace")
    refused(optimizers.RMSprop(centered=True), "that of RMSprop is not known")
    refused(optimizers.SGD(momentum=1.0), "that of SGD is not known")
    refused(Mine(), "that of Mine is not known")
    refused(Clipping(), "that of Clipping is not known")
    refused(optimizers.LossScaleOptimizer(optimizers.Lion()), "that of Lion is not known")
    by_function = optimizers.MultiOptimizer(lambda variable: optimizers.SGD())
    refused(by_function, "that of MultiOptimizer is not known")
    refused(optimizers.SGD(clipnorm=1.0), "not exact under clipnorm=1.0 of SGD: clipping shortens")
    refused(optimizers.SGD(clipvalue=1.0), "clipvalue=1.0")
    refused(optimizers.SGD(global_clipnorm=1.0), "global_clipnorm=1.0")
    refused(optimizers.Adam(use_ema=True), "use_ema=True of Adam: Keras averages")
    refused(optimizers.Adam(gradient_accumulation_steps=2), "gradient_accumulation_steps=2")
    refused(
        optimizers.Adam(),
        "(on 'first.kernel' under Adam) has no exact proximal operator",
        regularizer=GroupLasso(0.1) + GroupLasso(0.1, groups="inputs"),
    )
    model = network()
    model.layers[1].kernel.constraint = keras.constraints.NonNeg()
    raises(
        ModeError,
        "'second.kernel' has the constraint NonNeg",
        lambda: regularize(model, L1(0.1), mode="proximal"),
    )
    layer = layers.Dense(2)
    layer.build((None, 2))
    raises(ModelError, "compile it first", lambda: regularize(layer, L1(0.1), mode="proximal"))


def check_optimizers_within_others_are_looked_through() -> None:
    """The steps, and the shrinking, are those of the optimizer within."""
    layers_of_all = {"sgd": optimizers.SGD(0.1), "adam": optimizers.Adam(0.05)}
    for name, alone in layers_of_all.items():
        expected = linear(alone)
        regularize(expected, L1(STRENGTH), mode="proximal")
        inner = type(alone).from_config(alone.get_config())
        scaled = linear(optimizers.LossScaleOptimizer(inner, initial_scale=8.0))
        plan = regularize(scaled, L1(STRENGTH), mode="proximal")
        for model in (expected, scaled):
            for _ in range(6):
                model.train_on_batch(FEATURES, TARGETS)
        found = number(scaled.layers[0].kernel)
        np.testing.assert_allclose(found, number(expected.layers[0].kernel), atol=1e-6)
        assert plan.in_force
        if name == "sgd":
            scaled.train_on_batch(np.inf * FEATURES, TARGETS)  # a step that is skipped
            np.testing.assert_array_equal(number(scaled.layers[0].kernel), found)


def check_what_compile_wraps_in_mixed_precision() -> None:
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = linear(optimizers.SGD(0.1))
        assert isinstance(model.optimizer, optimizers.LossScaleOptimizer)
        regularize(model, L1(100.0), mode="proximal")
        for _ in range(12):  # the first are skipped, until the scale is small enough
            model.train_on_batch(FEATURES, TARGETS)
        assert (number(model.layers[0].kernel) == 0).all()
    finally:
        keras.config.set_dtype_policy(policy)


def check_several_optimizers_in_one() -> None:
    def several() -> Any:
        table = optimizers.OptimizerMap(optimizers.SGD(0.1))
        table[".*first.*"] = optimizers.Adam(0.02)
        return optimizers.MultiOptimizer(table)

    model = network(optimizer=several())
    regularize(model, L1(0.3), mode="proximal")
    start = weights(model)
    fit(model)
    assert any((a != b).any() for a, b in zip(start, weights(model), strict=True))
    shrunk = [float(np.abs(w).sum()) for w in weights(model)[::2]]
    plain = network(optimizer=several())
    fit(plain)
    assert all(a < np.abs(w).sum() for a, w in zip(shrunk, weights(plain)[::2], strict=True))
    clipped = optimizers.OptimizerMap(optimizers.SGD(0.1))
    clipped[".*second.*"] = optimizers.SGD(0.1, clipnorm=1.0)
    raises(
        ModeError,
        "not exact under clipnorm=1.0 of SGD",
        lambda: regularize(
            network(optimizer=optimizers.MultiOptimizer(clipped)), L1(0.3), mode="proximal"
        ),
    )
