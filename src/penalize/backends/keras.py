"""Variables of Keras, which hold an array of its backend."""

from __future__ import annotations

from keras.src.backend.common.variables import AutocastScope  # Keras exports none

from penalize.backends import Array, Backend, open_array


def open(variable: Array, whole: bool) -> tuple[Array, Backend]:
    """The array of a variable in its own precision, and its backend.

    A layer under a policy of mixed precision sees its variables in half precision.
    """
    with AutocastScope(None):
        return open_array(variable.value, whole=whole)
