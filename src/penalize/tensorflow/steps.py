"""The proximal step that an optimizer of TensorFlow 1 really took; see :mod:`penalize.steps`.

Each function reads the state after the update.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from penalize import steps
from penalize.backends import tensorflow as xp
from penalize.errors import ModeError
from penalize.steps import Step, Taken
from penalize.tensorflow.weights import Weight

v1 = tf.compat.v1


StepSize = Callable[[Any, Weight], Taken]
"""(optimizer, weight) → its step."""


def _slot(optimizer: Any, weight: Weight, name: str) -> Any:
    return weight.joined(lambda variable: optimizer.get_slot(variable, name).read_value())


def _number(value: Any) -> Any:
    return tf.cast(value, tf.float64)


def _rate(optimizer: Any) -> Any:
    return _number(optimizer._learning_rate_tensor)


def _gradient_descent(optimizer: Any, weight: Weight) -> Taken:
    return steps.sgd(_rate(optimizer))


def _momentum(optimizer: Any, weight: Weight) -> Taken:
    return steps.sgd(_rate(optimizer), _number(optimizer._momentum_tensor))


def _adam(optimizer: Any, weight: Weight) -> Taken:
    # The optimizer multiplies the power once more after the update.
    after = _number(optimizer._get_beta_accumulators()[1].read_value())
    return steps.adam(
        _number(optimizer._lr_t),
        _slot(optimizer, weight, "v"),
        correction=1 - after / _number(optimizer._beta2_t),
        eps=_number(optimizer._epsilon_t),
        eps_is_scaled=True,
    )


def _adagrad(optimizer: Any, weight: Weight) -> Taken:
    return steps.adagrad(_rate(optimizer), _slot(optimizer, weight, "accumulator"))


def _rmsprop(optimizer: Any, weight: Weight) -> Taken:
    return steps.rmsprop(  # whose average begins with one
        _rate(optimizer),
        _slot(optimizer, weight, "rms"),
        momentum=_number(optimizer._momentum_tensor),
        inside=_number(optimizer._epsilon_tensor),
    )


_KNOWN: dict[type, StepSize] = {
    v1.train.GradientDescentOptimizer: _gradient_descent,
    v1.train.MomentumOptimizer: _momentum,
    v1.train.AdamOptimizer: _adam,
    v1.train.AdagradOptimizer: _adagrad,
    v1.train.RMSPropOptimizer: _rmsprop,
}

_ONE_STEP = (_gradient_descent, _momentum)


def step_size_of(optimizer: Any) -> tuple[StepSize, bool]:
    """How to read the step that this optimizer takes, and whether it differs by element.

    Raises:
        ModeError: its step is not known.
    """
    found = _KNOWN.get(type(optimizer))
    if found is None or getattr(optimizer, "_centered", False):
        # Centered, it divides by the spread of the gradient, which is 0 where the gradient stands
        # still, as it does at a penalized minimum: the step grows without bound.
        kind = "a centered " if found else ""
        raise ModeError(
            'mode="proximal" needs the step that the optimizer really takes, and that of '
            f"{kind}{type(optimizer).__name__} is not known",
            f"use one of {', '.join(sorted(k.__name__ for k in _KNOWN))}, or leave the mode out",
        )
    return found, found not in _ONE_STEP


def step_of(taken: Taken, w: Any) -> Step:
    """The step of a weight, in its type."""
    held = {
        name: tf.cast(value, w.dtype)
        for name, value in taken._asdict().items()
        if tf.is_tensor(value)
    }
    return taken._replace(**held).step(xp)
