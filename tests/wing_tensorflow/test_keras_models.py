"""Keras models planned for a TensorFlow loop: what acts is ``plan.penalty()``, and nothing else."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import penalize.keras
from penalize import (
    L1,
    L2,
    LossError,
    ModelError,
    NeverAppliedWarning,
    everything,
    kernels,
    of_type,
)
from penalize.tensorflow import audit, regularize


@pytest.fixture(autouse=True)
def _on_tensorflow() -> None:
    assert keras.backend.backend() == "tensorflow"


def build(**arguments: object) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, name="hidden", **arguments),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dense(2, name="head"),
        ]
    )


def test_a_model() -> None:
    model = build()
    plan = regularize(model, {kernels: L2(0.1), "head": L1(0.2)})
    assert {row.name: row.regularizer for row in plan.rows} == {
        "hidden.kernel": L2(0.1),
        "hidden.bias": None,
        "norm.gamma": None,
        "norm.beta": None,
        "head.kernel": L1(0.2),
        "head.bias": None,
    }
    hidden, head = model.layers[0].kernel.numpy(), model.layers[-1].kernel.numpy()
    expected = {"hidden.kernel": 0.1 * (hidden**2).sum(), "head.kernel": 0.2 * abs(head).sum()}
    assert plan.breakdown() == pytest.approx(expected)
    assert model.losses == []
    with tf.GradientTape() as tape:
        penalty = plan.penalty()
    gradient = tape.gradient(penalty, model.layers[0].kernel.value)
    np.testing.assert_allclose(gradient, 0.2 * hidden, rtol=1e-6)
    model.layers[0].trainable = False
    assert list(plan.breakdown()) == ["head.kernel"]


def test_a_layer_that_was_replaced() -> None:
    """The penalty was that of the old head, for ever."""
    model = build()
    plan = regularize(model, L2(0.1))
    model.pop()
    model.add(keras.layers.Dense(5, name="other"))
    with pytest.raises(
        ModelError, match=r"'head\.kernel', 'head\.bias' of this Sequential was repl"
    ):
        plan.penalty()


def test_a_layer_that_was_replaced_in_a_module() -> None:
    module = tf.Module()
    module.head = keras.layers.Dense(2)
    module.head.build((None, 3))
    plan = regularize(module, L2(0.1))
    module.head = keras.layers.Dense(2)
    module.head.build((None, 3))
    with pytest.raises(ModelError, match=r"'head\.kernel', 'head\.bias' of this Module was repl"):
        plan.penalty()


def test_a_layer_that_came_later() -> None:
    model = build()
    plan = regularize(model, L2(0.1))
    model.add(keras.layers.Dense(5, name="more"))
    with pytest.warns(
        NeverAppliedWarning, match=r"'more\.kernel', 'more\.bias' came to the Sequenti"
    ):
        plan.penalty()


def test_inside_of_a_layer_in_half_precision() -> None:
    """A layer under mixed precision sees its own variables in half precision."""
    seen = []

    class Told(keras.layers.Layer):
        def build(self, shape: tuple[int, ...]) -> None:
            self.w = self.add_weight(shape=(2, 2), initializer=keras.initializers.Constant(0.1))

        def call(self, x: object) -> object:
            seen.append(plan.penalty())
            return x @ self.w

    layer = Told(dtype="mixed_float16")
    layer.build((None, 2))
    plan = regularize(layer, {everything: L2(1.0)})
    layer(np.ones((1, 2)))
    assert float(seen[0]) == float(plan.penalty())
    assert float(seen[0]) != 4 * float(np.float16(0.1)) ** 2


def test_the_variables_of_a_model() -> None:
    model = build()
    plan = regularize(model.trainable_variables, L2(0.1))
    penalized = [row.name for row in plan.rows if row.regularizer is not None]
    assert penalized == [
        model.layers[0].kernel.path.replace("/", "."),
        model.layers[-1].kernel.path.replace("/", "."),
    ]


def test_a_module_that_holds_a_model() -> None:
    class Net(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = build()
            self.kernel = tf.Variable(np.ones((2, 2), np.float32))

    net = Net()
    plan = regularize(net, {of_type(keras.layers.Dense) & kernels: L2(0.1), "kernel": L1(0.2)})
    penalized = {row.name: row.regularizer for row in plan.rows if row.regularizer is not None}
    assert penalized == {
        "body.hidden.kernel": L2(0.1),
        "body.head.kernel": L2(0.1),
        "kernel": L1(0.2),
    }
    assert list(plan.breakdown()) == list(penalized)


def test_what_the_model_declares_is_in_the_plan_and_must_not_be_added_again() -> None:
    model = build(kernel_regularizer=keras.regularizers.L2(0.3))
    plan = regularize(model, {"head": L1(0.2)})
    rows = {row.name: row.regularizer for row in plan.rows if row.regularizer is not None}
    assert rows == {"hidden.kernel": L2(0.3), "head.kernel": L1(0.2)}
    x = np.ones((2, 3), np.float32)

    def by_plan() -> tf.Tensor:
        return tf.reduce_mean(model(x)) + plan.penalty()

    def forgotten() -> tf.Tensor:
        return tf.reduce_mean(model(x))

    def by_keras() -> tf.Tensor:
        return tf.reduce_mean(model(x)) + sum(model.losses)

    def doubled() -> tf.Tensor:
        return tf.reduce_mean(model(x)) + sum(model.losses) + plan.penalty()

    measured = {
        f.__name__: [row.factor for row in audit(f, plan)]
        for f in (by_plan, forgotten, by_keras, doubled)
    }
    assert measured == {
        "by_plan": [1.0, 1.0],
        "forgotten": [0.0, 0.0],
        "by_keras": [1.0, 0.0],
        "doubled": [2.0, 1.0],
    }
    assert isinstance(model.layers[0].kernel.regularizer, keras.regularizers.L2)


def test_a_plan_of_the_keras_wing_is_audited() -> None:
    model = build()
    plan = penalize.keras.regularize(model, L2(0.3))
    x = np.ones((2, 3), np.float32)

    def data() -> tf.Tensor:
        return tf.reduce_mean(model(x))

    losses = {
        "forgotten": data,
        "by Keras": lambda: data() + sum(model.losses),
        "by the plan": lambda: data() + plan.penalty(),
        "doubled": lambda: data() + plan.penalty() + sum(model.losses),
    }
    before = [layer.kernel.regularizer for layer in (model.layers[0], model.layers[-1])]
    measured = {name: [row.factor for row in audit(loss, plan)] for name, loss in losses.items()}
    assert measured == {
        "forgotten": [0.0, 0.0],
        "by Keras": [1.0, 1.0],
        "by the plan": [1.0, 1.0],
        "doubled": [2.0, 2.0],
    }
    assert [layer.kernel.regularizer for layer in (model.layers[0], model.layers[-1])] == before


def test_a_plan_that_acts_in_the_step_is_not_audited_in_the_loss() -> None:
    model = build()
    model.compile("sgd", "mse")
    plan = penalize.keras.regularize(model, L1(0.3), mode="proximal")
    with pytest.raises(LossError, match="acts on another backend, or not in the loss; pass one of"):
        audit(lambda: tf.constant(0.0), plan)


def test_an_unbuilt_model() -> None:
    model = keras.Sequential([keras.layers.Dense(2)])
    with pytest.raises(ModelError, match=r"not built.*build or call it first"):
        regularize(model, L2(0.1))
