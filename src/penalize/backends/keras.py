"""Keras' variables: opened to the arrays of its backend that they hold."""

from __future__ import annotations

from keras.src.backend.common.variables import AutocastScope  # Keras exports none

from penalize.backends import Array, Backend, open_array


def open(variable: Array, whole: bool) -> tuple[Array, Backend]:
    """The array that a variable holds, and its backend.

    A layer under a policy of mixed precision sees its variables in half precision; this does not.
    """
    with AutocastScope(None):
        return open_array(variable.value, whole=whole)
