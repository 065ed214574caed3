"""What Keras keeps of a model elsewhere while it trains, and an error would lose.

Keras is not imported here: it is seen in the functions that run.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def values_kept() -> Iterator[None]:
    """Let no error cost the model its weights.

    While ``fit`` and ``evaluate`` run on JAX, they have taken the values out of the variables, and
    before the first step is done they do not put them back when an error comes.
    """
    try:
        yield
    except BaseException:
        _put_back()
        raise


def _put_back() -> None:
    state: Any = None
    for frame in running():
        if not frame.f_globals["__name__"].startswith("keras.src.backend.jax."):
            continue
        name, seen = frame.f_code.co_name, frame.f_locals
        if name in ("iterator_step", "fit", "evaluate", "predict") and state is None:
            state = seen.get("state")  # the newest is that of the innermost
        if name in ("fit", "evaluate", "predict") and state is not None:
            _fill(seen["self"], state)
            state = None


def _fill(model: Any, state: tuple[list[Any], ...]) -> None:
    # In this order Keras takes them out; to evaluate it needs no optimizer.
    stores = [model.trainable_variables, model.non_trainable_variables]
    stores += [model.optimizer.variables] if len(state) == 4 else []
    stores += [model.metrics_variables]
    for variables, values in zip(stores, state, strict=False):
        for variable, value in zip(variables, values, strict=True):
            if variable._value is None:  # set past the scope of the step that is being traced
                variable._value = value
    model._jax_state_synced = True


def running() -> Iterator[FrameType]:
    """The functions that run, from the innermost on."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back
