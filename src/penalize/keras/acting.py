"""What stands on a Keras variable as its regularizer while a plan acts on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from keras import backend, config, ops

from penalize.keras.trainers import adds_up_losses
from penalize.keras_values import values_kept
from penalize.regularizers.base import Regularizer


@dataclass(frozen=True, eq=False)
class InForce:
    """A regularizer that first looks whether the plan can still act, and its penalty acts once.

    Keras calls it in each step that is traced (on PyTorch, in each step), and before the first step
    after a model was compiled: that may be anew, with another optimizer, long after the plan was
    made. In a step it is called for the loss, before anything is updated.
    """

    regularizer: Callable[[Any], Any]
    look: Callable[[], None]
    model: Any = None
    """The model whose optimizer counts the steps that a schedule follows."""

    def __call__(self, w: Any) -> Any:
        with values_kept():
            self.look()
            return _added(at_step_of(self.model, self.regularizer)(w))


def _added(penalty: Any) -> Any:
    """A penalty, in the dtype in which it is added up: TensorFlow takes one only.

    Keras computes the loss of the data in ``floatx()``, whatever the dtype of the layers. The
    derivative of a cast is 1: the gradient of a float64 weight is rounded nowhere.
    """
    dtype = config.floatx()
    if backend.backend() != "tensorflow" or backend.standardize_dtype(penalty.dtype) == dtype:
        return penalty
    return ops.cast(penalty, dtype) if adds_up_losses() else penalty


def at_step_of(model: Any, regularizer: Any, step: Any = None) -> Any:
    """The regularizer at a step; by default the one that the model's optimizer has come to."""
    if not (isinstance(regularizer, Regularizer) and regularizer.scheduled):
        return regularizer
    optimizer = getattr(model, "optimizer", None)
    now = getattr(optimizer, "iterations", None) if step is None else step
    return regularizer if now is None else regularizer.at(now)


def zeros(w: Any) -> Any:
    """0·Σw: no penalty, and a gradient of zeros.

    On TensorFlow and PyTorch an optimizer passes over a variable without a gradient, and so over
    its constraint. A penalty acts on every trainable variable in every step.
    """
    # Not 0.0 times the sum, which may overflow in half precision.
    return ops.cast(ops.sum(0.0 * w), config.floatx())


def behind(regularizer: Any) -> Any:
    """What is declared as a variable's regularizer, behind what a plan has put there."""
    if isinstance(regularizer, InForce):
        regularizer = regularizer.regularizer
    return None if regularizer is zeros else regularizer
