"""The gradient of a Keras model's loss on any backend: what a step of plain descent takes away."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras

from penalize.selection.beginning import Loss, Weights


def numpy_of(variable: Any) -> Any:
    """The values of a variable."""
    # A copy is a tensor: NumPy 2 warns where it is given a variable of TensorFlow.
    return keras.ops.convert_to_numpy(keras.ops.copy(variable))


class Around(keras.Model):  # type: ignore[misc]
    """A model around another one, compiled by itself: the inner one stays as it was compiled."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.inner = model

    def call(self, inputs: Any, training: bool = False) -> Any:
        return self.inner(inputs, training=training)


@contextmanager
def unpenalized(variables: Mapping[str, Any]) -> Iterator[None]:
    """A block in which no variable has a regularizer or constraint."""
    kept = [(v, v.regularizer, v.constraint) for v in variables.values()]
    for variable, *_ in kept:
        variable.regularizer = variable.constraint = None
    try:
        yield
    finally:
        for variable, regularizer, constraint in kept:
            variable.regularizer, variable.constraint = regularizer, constraint


def loss_of(model: Any, loss: Callable[..., Any], x: Any, y: Any, variables: Any) -> Loss:
    """The loss of all samples, and its gradients, as functions of the variables' values.

    With a learning rate of 1 a step leaves w − g: at w = 0 that is the gradient to the last digit.
    """
    around = Around(model)
    around.compile(optimizer=keras.optimizers.SGD(learning_rate=1.0), loss=loss)

    def measured(weights: Weights) -> tuple[float, Weights]:
        for name, variable in variables.items():
            variable.assign(weights[name])
        value = around.train_on_batch(x, y)
        after = {name: numpy_of(v) for name, v in variables.items()}
        return float(value), {name: weights[name] - after[name] for name in variables}

    return measured
