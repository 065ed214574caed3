"""One door per penalty: what would apply one of a plan's penalties a second time."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from penalize.errors import AppliedTwiceError
from penalize.keras.modes import PenalizedVariable


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
        optimizer = getattr(model, "optimizer", None)
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # of a LossScaleOptimizer
        decay = getattr(optimizer, "weight_decay", None)
        if optimizer is None or not decay:
            continue
        for target in targets:
            if target.regularizer.split()[1] and optimizer._use_weight_decay(
                target.weight.variable
            ):
                return AppliedTwiceError(
                    [target.name],
                    f"{target.regularizer!r} of the plan",
                    f"weight_decay={decay!r} of {type(optimizer).__name__}, with which the model "
                    f"{model.name!r} is compiled",
                    "Compile with weight_decay=0.0, or exclude_from_weight_decay() what the plan "
                    "penalizes, or leave the L2 out of the rules",
                )
    return None
