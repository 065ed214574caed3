"""The live models that train a variable, their traced functions, and where they keep values."""

from __future__ import annotations

import gc
import sys
import traceback
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any

import keras

from penalize.alive import alive


def models_with(model: Any, variables: Iterable[Any]) -> list[Any]:
    """Every live model that holds one of these, such as the one that the given model is part of.

    Nothing leads from a layer to the models around it, so all live objects are looked through,
    which takes a tenth of a second in a large process.
    """
    wanted = {id(variable) for variable in variables}
    live = alive(keras.Model, _live_objects())
    candidates = {id(candidate): candidate for candidate in chain(models_in(model), live)}
    return [
        candidate
        for candidate in candidates.values()
        if any(id(v) in wanted for layer in _with_all_below(candidate) for v in _own(layer))
    ]


def models_in(model: Any) -> list[Any]:
    """A model, and those within it."""
    return alive(keras.Model, _with_all_below(model))


def _live_objects() -> list[Any]:
    """All that the collector knows, and what can be reached if it was told to freeze.

    It does not tell of what is frozen, and to unfreeze that, or to freeze again, would change what
    the user's ``gc.freeze()`` stands for. So it is looked for as the collector would, which takes a
    second in a large process.
    """
    known = gc.get_objects()
    return _reachable(known) if gc.get_freeze_count() else known


def _reachable(known: list[Any]) -> list[Any]:
    """The objects, and all that modules, running functions and they themselves refer to."""
    waiting: list[Any] = [sys.modules, *known]
    for frame in sys._current_frames().values():
        for running, _ in traceback.walk_stack(frame):
            # A copy: from Python 3.13 on it is a view, of which the collector knows nothing.
            waiting += [dict(running.f_locals), running.f_globals]
    found: dict[int, Any] = {}
    while waiting:
        new = {id(x): x for x in waiting if id(x) not in found}
        found |= new
        waiting = [x for x in gc.get_referents(*new.values()) if gc.is_tracked(x)]
    return list(found.values())


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
        for kind in ("train", "test"):
            if getattr(model, f"{kind}_function", None) is not None:
                with _renewed(model, f"{kind}_step"):
                    # Of its class: what a plan has set before it asks whether that may train.
                    getattr(type(model), f"make_{kind}_function")(model, force=True)


@contextmanager
def _renewed(model: Any, method: str) -> Iterator[None]:
    """A method of a model as another object.

    JAX does not trace anew what is equal to something that it has traced, as the methods of one
    object are, while somebody holds the function that was made of it.
    """
    own = {name: vars(model)[name] for name in (method,) if name in vars(model)}
    vars(model)[method] = partial(getattr(model, method))
    try:
        yield
    finally:
        del vars(model)[method]
        vars(model).update(own)


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
