"""What is refused while a model trains leaves its weights, optimizer and counters as they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fitting
import keras
import numpy as np
import pytest
from fitting import X, Y, around, fit
from keras import layers, optimizers
from reference import raises

from penalize import (
    L0,
    L1,
    L2,
    AppliedTwiceError,
    MissingPackageError,
    ModeError,
    NoGradientError,
    NonNegative,
    NoProximalOperatorError,
    NoStepError,
    NuclearNorm,
    RegularizerError,
    warmup,
)
from penalize.keras import plan_on, regularize


class Summed(keras.Model):
    """Compiled without a loss, which is in the model: Keras builds nothing of it beforehand."""

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        return keras.ops.mean((y - y_pred) ** 2) + sum(self.losses)


class Stretched(optimizers.SGD):
    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        super().apply([2 * g for g in grads], trainable_variables)


def network(kind: Any = keras.Model, regularizer: Any = None) -> keras.Model:
    """With all that a forward pass moves: averages of a batch norm, the seed of a dropout."""
    inputs = keras.Input((6,))
    x = layers.Dense(4, kernel_regularizer=regularizer, name="first")(inputs)
    x = layers.Dropout(0.5)(layers.BatchNormalization()(x))
    model = kind(inputs, layers.Dense(2, name="second")(x))
    compiled(model, optimizers.SGD(0.1))
    return model


def compiled(model: keras.Model, optimizer: Any) -> None:
    model.compile(optimizer, loss=None if isinstance(model, Summed) else "mse")


def everything(model: keras.Model) -> list[np.ndarray]:
    optimizer = model.optimizer.variables if model.optimizer.built else []
    return [np.array(keras.ops.convert_to_numpy(v)) for v in [*model.variables, *optimizer]]


def unmoved(model: keras.Model, kind: Any, part: str, train: Callable[[Any], Any] = fit) -> None:
    """The error that training a model raises, after which nothing has moved."""
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    before, count = everything(model), int(model.optimizer.iterations)
    raises(kind, part, lambda: train(model))
    for was, now in zip(before, everything(model), strict=True):
        np.testing.assert_array_equal(was, now)
    assert int(model.optimizer.iterations) == count


PROXIMAL: dict[str, tuple[Callable[[], Any], str]] = {
    "unknown": (optimizers.Lion, "that of Lion is not known"),
    "of one's own": (Stretched, "that of Stretched is not known"),
    "clipnorm": (lambda: optimizers.SGD(clipnorm=1.0), "not exact under clipnorm=1.0"),
    "clipvalue": (lambda: optimizers.SGD(clipvalue=1.0), "clipvalue=1.0"),
    "global_clipnorm": (lambda: optimizers.SGD(global_clipnorm=1.0), "global_clipnorm=1.0"),
    "use_ema": (lambda: optimizers.Adam(use_ema=True), "use_ema=True"),
    "accumulation": (lambda: optimizers.SGD(gradient_accumulation_steps=2), "accumulation_steps=2"),
    "loss scale": (lambda: optimizers.LossScaleOptimizer(optimizers.Lion()), "that of Lion is not"),
}


def check_a_proximal_step_that_is_not_exact_moves_nothing() -> None:
    for kind in (keras.Model, Summed):
        model = network(kind)
        plan = regularize(model, L1(0.01), mode="proximal")
        fit(model)
        for make, part in PROXIMAL.values():
            compiled(model, make())
            unmoved(model, ModeError, part)
        plan.detach()
        compiled(model, optimizers.SGD(0.1))
        regularize(model, {"first": NuclearNorm(0.01)}, mode="proximal")
        compiled(model, optimizers.Adam(0.1))
        unmoved(model, NoProximalOperatorError, "'first.kernel' under Adam")
        compiled(model, optimizers.SGD(0.1))
        fit(model)  # goes on
        assert (np.array(model.layers[1].kernel) != 0).any()


def check_a_penalty_that_is_applied_twice_moves_nothing() -> None:
    for kind in (keras.Model, Summed):
        for mode in ("loss", "proximal"):
            model = network(kind)
            regularize(model, L2(0.01), mode=mode)
            fit(model)
            compiled(model, optimizers.AdamW(0.1))
            unmoved(model, AppliedTwiceError, "weight_decay=0.004 of AdamW")


def check_settings_that_change_between_steps() -> None:
    """Nothing is compiled anew, and what has been traced does not know of it."""
    model = network()
    regularize(model, L1(0.01), mode="proximal")
    fit(model)
    model.optimizer.clipnorm = 1.0

    def other_batches(model: keras.Model) -> None:
        model.fit(X[:10], Y[:10], batch_size=5, verbose=0)

    unmoved(model, ModeError, "clipnorm=1.0", other_batches)


def check_a_model_around_moves_nothing() -> None:
    for when in ("before", "after"):
        part = network()
        whole = around(part)[0] if when == "before" else None
        regularize(part, L1(0.01), mode="proximal")
        whole = whole or around(part)[0]
        unmoved(whole, ModeError, "is stepped by an optimizer (SGD) that is not the one")
        part = network()
        whole = around(part)[0] if when == "before" else None
        regularize(part, L2(0.01))
        whole = whole or around(part)[0]
        whole.compile(optimizers.AdamW(0.1), "mse")
        unmoved(whole, AppliedTwiceError, f"with which the model {whole.name!r} is compiled")


def check_a_model_that_is_met_in_its_first_step() -> None:
    """Built after the plan, and compiled without a loss: JAX has taken its values by then."""

    def around_it(part: keras.Model, optimizer: Any) -> keras.Model:
        inputs = keras.Input((6,))
        whole = Summed(inputs, part(inputs))
        compiled(whole, optimizer)
        return whole

    part = fitting.network(optimizer=optimizers.SGD(0.1))
    regularize(part, L1(0.01), mode="proximal")
    unmoved(around_it(part, optimizers.SGD(0.1)), ModeError, "is stepped by an optimizer (SGD)")
    part = fitting.network()
    regularize(part, L2(0.01))
    whole = around_it(part, optimizers.AdamW(0.1))
    unmoved(whole, AppliedTwiceError, "weight_decay=0.004 of AdamW")
    unmoved(whole, AppliedTwiceError, "AdamW", lambda _: whole.fit(X, Y, epochs=2, verbose=0))
    whole.optimizer.weight_decay = 0.0
    whole.evaluate(X, Y, verbose=0)
    fit(whole)


def check_what_no_loss_can_have_moves_nothing() -> None:
    kinds: list[tuple[Any, Any, str]] = [
        (NonNegative(), NoGradientError, "NonNegative() (on a layer of Keras) has no gradient"),
        (L0(0.1), NoGradientError, 'takes it over: penalize.keras.regularize(model, mode="proxi'),
        (L1(0.1) + NonNegative(), NoGradientError, "(on a layer of Keras) has no gradient"),
        (L2(0.1) * warmup(5), NoStepError, "follows a schedule"),
    ]
    for regularizer, kind, part in kinds:
        if keras.backend.backend() == "jax":  # which has taken the values by then
            unmoved(network(Summed, regularizer), kind, part)
        model = network(regularizer=regularizer)
        unmoved(model, kind, part)
        raises(kind, part, lambda model=model: model.losses)
        plan = regularize(model, mode="proximal")
        fit(model)
        if isinstance(regularizer, NonNegative):
            assert (np.array(model.layers[1].kernel) >= 0).all()
        assert plan_on(model.layers[1].kernel) is plan
        assert len(plan.breakdown()) == 1
    value = NonNegative()(model.layers[1].bias)  # anybody else may ask for it
    assert float(keras.ops.convert_to_numpy(value)) in (0.0, np.inf)


def check_the_place_of_a_constraint() -> None:
    """What stands there is to give a weight, and none of ours does when it is called."""
    for regularizer in (NonNegative(), L1(0.1)):
        model = network(Summed)
        model.layers[1].kernel.constraint = regularizer
        part = f"{regularizer!r} stands as the constraint of a Keras variable"
        if keras.backend.backend() == "torch":  # asks for it when the update is done
            raises(RegularizerError, part, lambda model=model: fit(model))
        else:
            unmoved(model, RegularizerError, part)


def check_outputs_that_cannot_be_penalized() -> None:
    inputs = keras.Input((6,))
    for kind in (Summed, keras.Model):
        model = kind(inputs, layers.Dense(2, activity_regularizer=NonNegative())(inputs))
        compiled(model, optimizers.SGD(0.1))
        unmoved(model, NoGradientError, "On the outputs of a layer it cannot act")
    raises(NoGradientError, "NonNegative() (on a layer of Keras) has no", lambda: model(X))


def check_an_older_keras() -> None:
    """There only Keras' own classes are taken as the regularizer of a variable."""
    model = network()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras, "__version__", "3.14.1")
        raises(MissingPackageError, "needs keras>=3.15, which", lambda: regularize(model, L2(0.1)))
    assert all(variable.regularizer is None for variable in model.variables)
    regularize(model, L2(0.1))
