"""The live models that train a variable, and their traced functions."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from typing import Any

import keras


def models_with(variables: Iterable[Any]) -> list[Any]:
    """Every live model that holds one of these, such as the one that the given model is part of.

    Nothing leads from a layer to the models around it, so all live objects are looked through,
    which takes a tenth of a second in a large process.
    """
    wanted = {id(variable) for variable in variables}
    return [
        candidate
        for candidate in gc.get_objects()
        # type(), not isinstance(): proxies among the live objects answer isinstance by loading.
        if issubclass(type(candidate), keras.Model)
        and "_tracker" in vars(candidate)  # else its __init__ has not run
        and any(id(v) in wanted for v in candidate.variables)
    ]


def trace_again(models: Iterable[Any]) -> None:
    """Have JAX and TensorFlow trace what depends on the penalties when it is next called.

    The functions of ``fit`` and ``evaluate`` contain penalties and constraints; ``predict`` has
    neither. The optimizer and its iterations are not touched.
    """
    for model in models:
        if model.train_function is not None:
            model.make_train_function(force=True)
        if model.test_function is not None:
            model.make_test_function(force=True)
