"""The settings that a ``Training`` has in every framework."""

from __future__ import annotations

import math
from typing import Any, Protocol

from penalize.errors import PathError
from penalize.regularizers.base import as_number
from penalize.selection.folds import SEEDS, check_whole


class TrainingSettings(Protocol):
    """What every ``Training`` has."""

    @property
    def epochs(self) -> int:
        """Passes over the samples, at most."""

    @property
    def batch_size(self) -> int | None:
        """None: all samples in each step."""

    @property
    def seed(self) -> int:
        """The seed of the batches."""

    @property
    def tolerance(self) -> float:
        """Training ends after an epoch in which no weight has moved by more than this."""


def check_settings(training: TrainingSettings) -> None:
    """Raise :class:`PathError` for a setting that is out of its range."""
    check_whole("Training got epochs", training.epochs, 1)
    if training.batch_size is not None:
        check_whole("Training got batch_size", training.batch_size, 1)
    check_whole("Training got seed", training.seed, 0, SEEDS)
    if not 0 <= as_number(training.tolerance) < math.inf:
        raise PathError(
            f"Training got tolerance={training.tolerance!r}", "expected a finite number >= 0"
        )


def settings_of(training: TrainingSettings) -> dict[str, Any]:
    """The settings as plain data."""
    names = ("epochs", "batch_size", "seed", "tolerance")
    return {name: getattr(training, name) for name in names}


def check_wing(fit: Any, plan: Any, training: type, plans: type) -> None:
    """Raise :class:`PathError` for a training or plan of another framework, or for none at all."""
    wing = ".".join(plans.__module__.split(".")[:2])
    for word, value, kind, maker in (
        ("fit", fit, training, "Training"),
        ("plan", plan, plans, "regularize"),
    ):
        if not isinstance(value, kind):
            raise PathError(
                f"{word} is {told(value)}", f"{wing}.path takes what {wing}.{maker} makes"
            )


def told(value: Any) -> str:
    """What a value is, for a sentence; of penalize's own also of which framework."""
    kind = type(value)
    home = ".".join(kind.__module__.split(".")[:2])
    return f"a {kind.__name__} of {home}" if home.startswith("penalize.") else f"{value!r:.60}"
