"""What a printed plan says of saving, and of a model that has changed since."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
from fitting import X, around, network, same
from keras import layers, optimizers
from reference import raises
from saving import penalties, saved_and_loaded

from penalize import L1, L2, NeverAppliedWarning
from penalize.keras import regularize


@keras.saving.register_keras_serializable("remarks")
class Automatic(layers.Layer):
    """Keras makes up its configuration, from the arguments of its construction."""

    def __init__(self, units: int, kernel_regularizer: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(
            shape=(shape[-1], self.units), name="kernel", regularizer=self.kernel_regularizer
        )

    def call(self, x: Any) -> Any:
        return keras.ops.matmul(x, self.kernel)


class Unsavable(Automatic):
    def get_config(self) -> Any:
        raise RuntimeError("no configuration")


def of(layer: Any) -> keras.Model:
    return keras.Sequential([keras.Input((3,)), layer])


def check_saved_is_what_the_configuration_has() -> None:
    def by_hand(w: Any) -> Any:
        return 0.1 * keras.ops.sum(w * w)

    automatic, declared = of(Automatic(2)), of(Automatic(2, kernel_regularizer="l2"))
    on_variable, doubtful = of(layers.Dense(2)), of(Unsavable(2))
    on_variable.layers[0].kernel.regularizer = by_hand
    for model in (automatic, declared, on_variable):
        plan = regularize(model, L2(0.1))
        says_saved = "not saved" not in str(plan)
        assert says_saved == (penalties(saved_and_loaded(model)) == penalties(model))
        assert says_saved == (model is declared)
    assert "not saved with the model: 'unsavable.kernel'" in str(regularize(doubtful, L2(0.1)))


def check_a_lambda_is_not_warned_of_before_it_is_saved() -> None:
    plan = regularize(of(layers.Dense(2, kernel_regularizer=lambda w: keras.ops.sum(w))))
    assert "<lambda>" in str(plan)  # a warning of Keras' would be an error here


def check_declared_in_the_layer_and_proximal() -> None:
    model = network(L1(0.5), optimizers.SGD(0.1))
    plan = regularize(model, {"first.bias": L1(0.1)}, mode="proximal")
    assert str(plan).endswith(
        "declared on the layer, and so a loss term of the model that is saved: 'first.kernel', "
        "'second.kernel'; make the plan again after loading"
    )
    assert sum(penalties(model)) == 0
    assert sum(penalties(saved_and_loaded(model))) > 0
    plan.detach()
    assert "make the plan again" not in str(plan)
    plain = regularize(network(optimizer=optimizers.SGD(0.1)), L1(0.1), mode="proximal")
    assert "make the plan again" not in str(plain)


def check_a_kernel_that_was_quantized() -> None:
    for bias in (False, True):
        model = of(layers.Dense(2, use_bias=bias, name="d"))
        plan = regularize(model, L2(0.1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras warns of its own input layer
            model.quantize("int8")
        assert [row.name for row in plan.rows] == (["d.bias"] if bias else [])
        assert f"0 of {int(bias)} parameters penalized" in str(plan)
        assert str(plan).splitlines()[-1] == "no longer in the model: 'd.kernel'"
        assert plan.breakdown() == {}
        plan.detach()
        assert model.layers[0].kernel_regularizer is None


def check_detach_of_a_model_that_is_unbuilt_by_now() -> None:
    model, part = around(network())
    plan = regularize(model, L2(0.1))
    model.more = layers.Dense(3)  # has no variables yet
    assert "2 of 4 parameters penalized" in str(plan)
    plan.detach()
    assert not plan.in_force
    assert part.layers[0].kernel.regularizer is None


def check_a_layer_that_was_replaced_is_told_of() -> None:
    """A model of Keras that is built takes no other layer, a ``Sequential`` aside."""
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(4, name="body"), layers.Dense(2, name="head")]
    )
    plan = regularize(model, L2(0.1))
    model.pop()
    model.add(layers.Dense(3, name="head"))
    model.compile(optimizers.SGD(0.1), "mse")
    said = str(plan).splitlines()
    assert said[-2:] == [
        "no longer in the model: 'head.kernel'",
        "came after the plan was made: 'head.kernel'; make it again",
    ]
    batch = X, X[:, :3]
    before = model.get_weights()
    error = raises(NeverAppliedWarning, "'head.kernel' came", lambda: model.fit(*batch, verbose=0))
    assert "after the plan of remarks.py:" in str(error)
    assert "detach(), and plan the model as it is now" in str(error)
    same(before, model.get_weights(), atol=0)
    model.fit(*batch, verbose=0)  # it is said once
    assert list(plan.breakdown()) == ["body.kernel"]
    plan.detach()
    again = regularize(model, L2(0.1))
    assert list(again.breakdown()) == ["body.kernel", "head.kernel"]
    assert len(model.losses) == 2
    assert "came after" not in str(again)


def check_weights_that_are_tied_after_the_plan() -> None:
    first, second = Automatic(3), Automatic(3)
    model = keras.Sequential([keras.Input((3,)), first, second])
    plan = regularize(model, L2(0.1))
    own = second.kernel
    second._untrack_variable(own)
    second._tracker.unlock()  # as Keras does for LoRA
    second.kernel = first.kernel
    second._tracker.lock()
    expected = 0.1 * float(keras.ops.convert_to_numpy(keras.ops.sum(first.kernel**2)))
    np.testing.assert_allclose(sum(penalties(model)), expected, rtol=1e-5)
    np.testing.assert_allclose(sum(plan.breakdown().values()), expected, rtol=1e-5)
    np.testing.assert_allclose(
        float(keras.ops.convert_to_numpy(plan.penalty())), expected, rtol=1e-5
    )
    assert "no longer in the model" in str(plan)
