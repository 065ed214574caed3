"""The live models that train a variable, their traced functions, and where they keep values."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

import keras


def models_with(model: Any, variables: Iterable[Any]) -> list[Any]:
    """Every live model that holds one of these, such as the one that the given model is part of.

    Nothing leads from a layer to the models around it, so all live objects are looked through,
    which takes a tenth of a second in a large process.
    """
    wanted = {id(variable) for variable in variables}
    candidates = {
        id(candidate): candidate
        for candidate in chain(_with_all_below(model), _live_objects())
        # type(), not isinstance(): proxies among the live objects answer isinstance by loading.
        if issubclass(type(candidate), keras.Model)
    }
    return [
        candidate
        for candidate in candidates.values()
        if any(id(v) in wanted for layer in _with_all_below(candidate) for v in _own(layer))
    ]


def _live_objects() -> list[Any]:
    """All that the collector knows. What was frozen it tells only of when it is unfrozen."""
    frozen = gc.get_freeze_count() > 0
    if frozen:
        gc.unfreeze()
    try:
        return gc.get_objects()
    finally:
        if frozen:
            gc.freeze()


def _with_all_below(layer: Any) -> Iterator[Any]:
    """The layer and those below it, each once, by what Keras tracks.

    A model among the live objects may be anybody's: its properties may raise, it may be half made,
    and refer to itself. So none of its attributes is asked for.
    """
    seen, waiting = set(), [layer]
    while waiting:
        layer = waiting.pop()
        if id(layer) not in seen:
            seen.add(id(layer))
            yield layer
            waiting.extend(vars(layer).get("_layers", ()))


def _own(layer: Any) -> Iterator[Any]:
    for store in ("_trainable_variables", "_non_trainable_variables"):
        yield from vars(layer).get(store, ())


def weakly(models: Iterable[Any]) -> Callable[[], list[Any]]:
    """A function that gives those of the models that are still there, and keeps none of them."""
    references = [weakref.ref(model) for model in models]
    return lambda: [model for r in references if (model := r()) is not None]


def trace_again(models: Iterable[Any]) -> None:
    """Have JAX and TensorFlow trace what depends on the penalties when it is next called.

    The functions of ``fit`` and ``evaluate`` contain penalties and constraints; ``predict`` has
    neither. The optimizer and its iterations are not touched.
    """
    for model in models:
        if getattr(model, "train_function", None) is not None:
            model.make_train_function(force=True)
        if getattr(model, "test_function", None) is not None:
            model.make_test_function(force=True)


def bring_back_values(models: Iterable[Any]) -> None:
    """Have models on JAX, whose ``fit`` takes the values out of the variables, put them back."""
    for model in models:
        sync = getattr(model, "jax_state_sync", None)
        if sync is not None:
            sync()


def has_value(variable: Any) -> bool:
    """Whether a variable can be read now."""
    try:
        return variable.value is not None
    except TypeError:  # Keras calls the initializer, which it has let go
        return False
