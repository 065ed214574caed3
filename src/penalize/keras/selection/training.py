"""A training run in Keras as data: the model's own ``fit``, as it was compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from penalize.errors import PathError
from penalize.selection import inputs
from penalize.selection.describing import digest_of, name_of
from penalize.selection.settings import check_settings, settings_of


@dataclass(frozen=True, kw_only=True, eq=False)
class Training:
    """Training by ``fit``, with the optimizer and the loss that the model was compiled with.

    Each run begins with the optimizer as it is when the path begins, a schedule of its learning
    rate included, and with Keras' seeds as they are then. (On PyTorch Keras' dropout draws from
    PyTorch's own generator, which goes on.) Other callbacks and metrics take no part.

    Args:
        x: the inputs as arrays, samples along the first axis: one; a tuple of them; or a
            dictionary by the names of inputs.
        y: the targets, likewise: an array.
        epochs: passes over the samples, at most.
        batch_size: None: all samples in each step.
        loss: (y_true, y_pred) → the loss on what is held out, whose mean is taken. None: the one
            that the model was compiled with.
        score: (y_true, y_pred) → a number to be shown beside the loss, such as an accuracy.
        seed: of the batches.
        tolerance: training ends after an epoch in which no weight has moved by more than this.

    Raises:
        PathError: x and y are not arrays with as many samples, or a setting is out of its range.
    """

    x: inputs.Inputs
    y: Any
    epochs: int = 100
    batch_size: int | None = None
    loss: Callable[[Any, Any], Any] | None = None
    score: Callable[[Any, Any], Any] | None = None
    seed: int = 0
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        inputs.check(self.x, self.y, lambda a: isinstance(a, np.ndarray), "array", "numpy.asarray")
        for name in ("loss", "score"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise PathError(
                    f"Training got {name}={value!r}", "expected a function of y_true and y_pred"
                )
        check_settings(self)

    @property
    def samples(self) -> int:
        """The number of samples."""
        return len(self.y)

    def steps(self, samples: int) -> int:
        """The number of steps in an epoch."""
        return 1 if self.batch_size is None else -(-samples // self.batch_size)

    def batches(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """The sample numbers of each step, epoch after epoch."""
        for epoch in range(self.epochs):
            if self.batch_size is None:
                yield rows
                continue
            order = np.random.default_rng((self.seed, epoch)).permutation(rows)
            yield from np.split(order, range(self.batch_size, len(rows), self.batch_size))

    def loss_of(self, model: Any) -> Callable[[Any, Any], Any]:
        """The loss of what is held out.

        Raises:
            PathError: none is given, and the model was compiled with none, or with several.
        """
        compiled = getattr(model, "loss", None)
        if self.loss is not None:
            return self.loss
        if compiled is None or isinstance(compiled, dict | list | tuple):
            raise PathError(
                f"the model was compiled with the loss {compiled!r}",
                "pass Training(loss=…), a function of y_true and y_pred",
            )
        found: Callable[[Any, Any], Any] = keras.losses.get(compiled)
        return found

    def describe(self) -> dict[str, Any]:
        """The settings that make its results what they are, as plain data."""
        return {
            "loss": None if self.loss is None else name_of(self.loss),
            "data": digest_of([*inputs.parts_of(self.x).values(), self.y]),
            **settings_of(self),
        }


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """The batches of all epochs, one after another, as ``fit`` takes them."""

    def __init__(self, training: Training, rows: np.ndarray) -> None:
        super().__init__()
        self._training = training
        self._count = training.epochs * training.steps(len(rows))
        self._order = training.batches(rows)
        self._now: tuple[int, np.ndarray] = (-1, rows)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> tuple[Any, Any]:
        while self._now[0] < number:  # they are asked for in order
            self._now = self._now[0] + 1, next(self._order)
        rows = self._now[1]
        return inputs.taken(self._training.x, rows), self._training.y[rows]
