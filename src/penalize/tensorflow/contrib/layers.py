"""``tf.contrib.layers``' regularizers: TensorFlow 1's names, units, checks and collection effects.

The functions work in TensorFlow 1 graphs, in ``tf.function`` and eagerly, on tensors, variables and
NumPy arrays, and on Keras variables of any backend. Weights narrower than float32 are summed in
float32 before the result is cast back to their dtype.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import tensorflow as tf

from penalize.contrib import Layers
from penalize.errors import PenaltyOfPenaltyWarning, some

__all__ = [
    "apply_regularization",
    "l1_l2_regularizer",
    "l1_regularizer",
    "l2_regularizer",
    "sum_regularizer",
]

v1 = tf.compat.v1


class _Graph:
    """TensorFlow's current graph; its collections are those of ``tf.compat.v1``."""

    def name_scope(
        self, name: str | None, default: str, values: Sequence[Any]
    ) -> AbstractContextManager[str]:
        scope: AbstractContextManager[str] = v1.name_scope(
            name, default, [w for w in values if tf.is_tensor(w)]
        )
        return scope

    def multiply(self, scale: Any, value: Any, weights: Any, name: str) -> Any:
        if not (tf.is_tensor(value) or isinstance(value, np.ndarray | np.generic)):
            return scale * value  # an array of another framework, under Keras
        dtype = tf.as_dtype(weights.dtype).base_dtype
        # tf.cast would make a float32 of a Python float first.
        is_tensor = tf.is_tensor(scale)
        scale = tf.cast(scale, value.dtype) if is_tensor else tf.constant(scale, value.dtype)
        if dtype == value.dtype:
            return tf.multiply(scale, value, name=name)
        return tf.cast(tf.multiply(scale, value), dtype, name=name)

    def add_n(self, penalties: Sequence[Any], name: str) -> Any:
        if not any(map(tf.is_tensor, penalties)):
            first, *others = penalties
            return sum(others, first)
        return tf.add_n(penalties, name=name)

    def zero(self) -> Any:
        return tf.constant(0.0)

    def rank(self, penalty: Any) -> int | None:
        rank: int | None = tf.TensorShape(penalty.shape).rank
        return rank

    def weights(self) -> Sequence[Any]:
        found: list[Any] = v1.get_collection(v1.GraphKeys.WEIGHTS)
        return found

    def collect(self, penalty: Any) -> None:
        v1.add_to_collection(v1.GraphKeys.REGULARIZATION_LOSSES, penalty)


_layers = Layers(_Graph())

l1_regularizer = _layers.l1_regularizer
l2_regularizer = _layers.l2_regularizer
l1_l2_regularizer = _layers.l1_l2_regularizer
sum_regularizer = _layers.sum_regularizer


def apply_regularization(
    regularizer: Callable[[Any], Any], weights_list: Sequence[Any] | None = None
) -> Any:
    """The sum of the penalties of these weights, entered in ``REGULARIZATION_LOSSES``.

    As in TensorFlow 1 nothing else happens: the sum acts on training only when it is in the loss.

    Args:
        regularizer: a function of one array of weights, or a penalize regularizer. None, from it,
            counts as 0.
        weights_list: the weights; those of ``GraphKeys.WEIGHTS`` if None or empty.

    Raises:
        PenaltyError: a ValueError, as in TensorFlow 1: there are no weights, or the regularizer
            returns something that is no scalar.

    Warns:
        PenaltyOfPenaltyWarning: the list has penalties in it that are in the collection already, as
            when the collection itself is passed. TensorFlow 1 penalizes them in silence.
    """
    penalties = v1.get_collection(v1.GraphKeys.REGULARIZATION_LOSSES)
    taken = [
        w.name
        for w in weights_list or []
        if any(w is p for p in penalties) and not isinstance(w, tf.Variable)
    ]
    if taken:
        warnings.warn(
            f"apply_regularization was given {some(taken)}, which are penalties, not weights: "
            "the result is a penalty of a penalty. To add up what the collection holds, use "
            "tf.compat.v1.losses.get_regularization_loss(), or let "
            "penalize.tensorflow.regularized(optimizer) apply it.",
            PenaltyOfPenaltyWarning,
            stacklevel=2,
        )
    return _layers.apply_regularization(regularizer, weights_list)
