"""A plan on a model that is built, compiled and traced is what ``kernel_regularizer=`` gives."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers
from reference import raises

from penalize import L1, L2, GroupLasso, ModelError, kernels
from penalize.keras import plan_on, regularize

X = np.random.default_rng(0).normal(size=(48, 6)).astype("float32")
Y = np.sin(X[:, :2]).astype("float32")


def network(regularizer: Any = None, optimizer: Any = None, **compiled: Any) -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(5, activation="tanh", kernel_regularizer=regularizer, name="first"),
            layers.Dense(2, kernel_regularizer=regularizer, name="second"),
        ]
    )
    model.compile(optimizer or keras.optimizers.Adam(0.02), "mse", **compiled)
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(size=w.shape).astype("float32") for w in model.get_weights()])
    return model


def fit(model: keras.Model, epochs: int = 1) -> None:
    model.fit(X, Y, batch_size=16, epochs=epochs, shuffle=False, verbose=0)


def around(part: keras.Model) -> tuple[keras.Model, keras.Model]:
    """A compiled model, and the part that it is around."""
    inputs = keras.Input((6,))
    model = keras.Model(inputs, part(inputs))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model, part


def weights(model: keras.Model) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]


def state(model: keras.Model) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(v) for v in model.optimizer.variables]


def same(first: list[np.ndarray], second: list[np.ndarray], atol: float = 1e-6) -> None:
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


def differ(first: list[np.ndarray], second: list[np.ndarray]) -> None:
    assert any(not np.allclose(a, b, atol=1e-4) for a, b in zip(first, second, strict=True))


def check_a_traced_model_follows_in_the_next_step() -> None:
    regularizer = L1(0.05) + GroupLasso(0.05, groups=1)
    ours, theirs, never = network(), network(), network()
    for model in (ours, theirs, never):
        fit(model)  # traced
    before, trained = weights(ours), state(ours)
    plan = regularize(ours, regularizer)
    same(before, weights(ours), atol=0)
    same(trained, state(ours), atol=0)
    rebuilt = network(regularizer)  # declared at construction, from the same state
    rebuilt.optimizer.build(rebuilt.trainable_variables)
    for mine, other in zip(
        [*rebuilt.variables, *rebuilt.optimizer.variables],
        [*theirs.variables, *theirs.optimizer.variables],
        strict=True,
    ):
        mine.assign(other)
    for model in (ours, rebuilt, never):
        fit(model, epochs=2)
    same(weights(ours), weights(rebuilt))
    differ(weights(ours), weights(never))
    np.testing.assert_allclose(
        float(keras.ops.convert_to_numpy(plan.penalty())),
        float(keras.ops.convert_to_numpy(sum(ours.losses))),
        rtol=1e-6,
    )


def check_a_step_that_somebody_holds_is_traced_again() -> None:
    """JAX keeps what it has traced for as long as the function lives, and takes it for an equal."""
    ours, theirs = (network(r, keras.optimizers.SGD(0.1)) for r in (None, L2(0.1)))
    fit(ours)
    ours.evaluate(X, Y, verbose=0)
    held = ours.train_function, ours.test_function
    regularize(ours, L2(0.1))
    theirs.set_weights(ours.get_weights())
    assert ours.evaluate(X, Y, verbose=0) == theirs.evaluate(X, Y, verbose=0)
    for model in (ours, theirs):
        fit(model)
    same(weights(ours), weights(theirs), atol=0)
    assert all(held)
    assert "train_step" not in vars(ours)


def check_training_agrees() -> list[list[float]]:
    """Compared between the backends by the test."""
    model = network()
    fit(model)
    regularize(model, {kernels: L2(0.05), "first": L1(0.02)})
    fit(model, epochs=2)
    return [w.ravel().tolist() for w in weights(model)]


def check_detach_restores_the_model() -> None:
    own = keras.regularizers.L2(0.01)
    plain, planned = network(own), network(own)
    planned.layers[1].bias.regularizer = plain.layers[1].bias.regularizer = own
    for model in (plain, planned):
        fit(model)
        model.evaluate(X, Y, verbose=0)
    plan = regularize(planned, {"first.bias": L1(0.3)})
    assert plan.in_force
    assert planned.layers[0].bias_regularizer == L1(0.3)
    with_plan = planned.evaluate(X, Y, verbose=0)
    assert with_plan > plain.evaluate(X, Y, verbose=0) + 0.01
    plan.detach()
    plan.detach()
    assert not plan.in_force
    assert planned.layers[0].bias.regularizer is None
    assert planned.layers[0].bias_regularizer is None
    assert planned.layers[1].bias.regularizer is own
    assert planned.layers[0].kernel.regularizer is own
    for model in (plain, planned):
        fit(model)
    same(weights(plain), weights(planned), atol=0)
    assert planned.evaluate(X, Y, verbose=0) == plain.evaluate(X, Y, verbose=0)


def check_detach_leaves_alone_what_was_set_since() -> None:
    model = network()
    plan = regularize(model, L2(0.1))
    model.layers[0].kernel.regularizer = mine = keras.regularizers.L1(0.5)
    plan.detach()
    assert model.layers[0].kernel.regularizer is mine
    assert model.layers[1].kernel.regularizer is None


def check_a_plan_on_a_part_reaches_the_model_around_it() -> None:
    (ours, part), (theirs, _) = around(network()), around(network(L2(0.1)))
    fit(ours)  # traced
    regularize(part, L2(0.1))
    theirs.set_weights(ours.get_weights())
    for model in (ours, theirs):
        fit(model)
    same(weights(ours), weights(theirs), atol=0)


def check_a_train_step_of_ones_own() -> None:
    class Own(keras.Sequential):
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            return 2.0 * super().compute_loss(*args, **kwargs)

    def make(regularizer: Any) -> keras.Model:
        model = Own([keras.Input((6,)), layers.Dense(2, kernel_regularizer=regularizer)])
        model.compile(keras.optimizers.SGD(0.1), "mse")
        model.set_weights([np.ones((6, 2)), np.zeros(2)])
        return model

    ours, theirs = make(None), make(L2(0.1))
    fit(ours)  # traced
    regularize(ours, L2(0.1))
    theirs.set_weights(ours.get_weights())
    for model in (ours, theirs):
        fit(model)
    same(weights(ours), weights(theirs), atol=0)


def check_several_steps_per_execution() -> None:
    if keras.backend.backend() == "torch":
        return  # Keras refuses it there
    sgd = keras.optimizers.SGD
    ours, theirs = (network(r, sgd(0.1), steps_per_execution=3) for r in (None, L2(0.1)))
    fit(ours)  # traced
    regularize(ours, L2(0.1))
    theirs.set_weights(ours.get_weights())
    for model in (ours, theirs):
        fit(model)
    same(weights(ours), weights(theirs), atol=0)


def check_frozen_is_skipped_and_followed() -> None:
    model = network()
    model.layers[0].trainable = False
    plan = regularize(model, L2(0.1))
    frozen = plan.rows[0]
    assert frozen.regularizer is None
    assert frozen.note == "skipped: frozen (L2(0.1) when trainable)"
    assert list(plan.breakdown()) == ["second.kernel"]
    assert len(model.losses) == 1
    model.layers[0].trainable = True
    assert plan.rows[0].regularizer == L2(0.1)
    assert list(plan.breakdown()) == ["first.kernel", "second.kernel"]
    assert len(model.losses) == 2


class Looking(keras.callbacks.Callback):
    """Reads a plan after each batch, as a callback that logs would."""

    def __init__(self, plan: Any) -> None:
        super().__init__()
        self.plan = plan
        self.seen: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seen.append(sum(self.plan.breakdown().values()))
        assert f"penalty {self.seen[-1]:.4g}" in str(self.plan)
        value = float(keras.ops.convert_to_numpy(self.plan.penalty()))
        np.testing.assert_allclose(value, self.seen[-1], rtol=1e-6)


def check_a_plan_is_read_in_a_callback() -> None:
    def fit_looking(model: keras.Model, part: keras.Model) -> None:
        looking = Looking(regularize(part, L2(0.5)))
        model.fit(0 * X, 0 * Y, batch_size=16, epochs=2, verbose=0, callbacks=[looking])
        # The data has no gradient: each step takes a tenth of the kernels, and a bias stays 0.
        expected = [looking.seen[0] * 0.81**step for step in range(6)]
        np.testing.assert_allclose(looking.seen, expected, rtol=1e-5)

    part = network(optimizer=keras.optimizers.SGD(0.1))
    for variable in (layer.bias for layer in part.layers):
        variable.assign(0 * variable)
    fit_looking(part, part)
    plan_on(part.layers[0].kernel).detach()
    whole, _ = around(part)
    fit_looking(whole, part)


def check_a_plan_without_values_says_so() -> None:
    part = network()
    looking = Looking(regularize(part, L1(0.1)))
    unknown, _ = around(part)  # built after the plan

    def fit_unknown() -> None:
        unknown.fit(X, Y, verbose=0, callbacks=[looking])

    if keras.backend.backend() == "jax":
        error = raises(ModelError, "'first.kernel', 'second.kernel' has no value now", fit_unknown)
        assert "call self.model.jax_state_sync() first" in str(error)
    else:
        fit_unknown()


def check_naive_regularizer_after_tracing() -> list[list[float]]:
    """What a user would write today; tests/traps compares it between the backends."""
    model = network()
    fit(model)
    for layer in model.layers:
        layer.kernel.regularizer = keras.regularizers.L2(0.05)
    fit(model, epochs=2)
    return [w.ravel().tolist() for w in weights(model)]
