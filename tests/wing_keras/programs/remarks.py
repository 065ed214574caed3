"""What a printed plan says of saving, and of a model that has changed since."""

from __future__ import annotations

import warnings
from typing import Any

import keras
from fitting import around, network
from keras import layers, optimizers
from saving import penalties, saved_and_loaded

from penalize import L1, L2
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
