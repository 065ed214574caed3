"""One door per penalty: what would apply one of a plan's penalties a second time."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from penalize.errors import AppliedTwiceError
from penalize.keras.modes import PenalizedVariable
from penalize.keras.steppers import decay_of, stepper_of


def check_weight_decay(
    models: Callable[[], Iterable[Any]], targets: Sequence[PenalizedVariable]
) -> None:
    """An L2 beside the optimizer's own weight decay is the same penalty through a second door.

    Args:
        models: gives those that are there now, and holds none of them.
        targets: what is penalized.
    """
    if _second_door(models(), targets) is not None:
        # Models are full of cycles: one that is out of scope stays until it is collected.
        gc.collect()
        error = _second_door(models(), targets)
        if error is not None:
            raise error


def _second_door(
    models: Iterable[Any], targets: Sequence[PenalizedVariable]
) -> AppliedTwiceError | None:
    for model in models:
        for target in targets:
            if not target.regularizer.split()[1]:
                continue
            variable = target.weight.variable
            optimizer = stepper_of(getattr(model, "optimizer", None), variable)
            decay = decay_of(optimizer, variable)
            if decay is not None:
                argument, value = decay
                return AppliedTwiceError(
                    [target.name],
                    f"{target.regularizer!r} of the plan",
                    f"{argument}={value!r} of {type(optimizer).__name__}, with which the model "
                    f"{model.name!r} is compiled",
                    f"Compile with {argument}=0.0, or exclude_from_weight_decay() what the plan "
                    "penalizes, or leave the L2 out of the rules",
                )
    return None
