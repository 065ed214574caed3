"""What a path asks of a framework: a model, its plan, and how it is trained at a strength."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from penalize.errors import PathError
from penalize.selection.arrays import Arrays, NumpyArrays, State
from penalize.selection.folds import Fold, shuffled

if TYPE_CHECKING:
    from penalize.compacting.report import Compacted


class HeldOut(NamedTuple):
    """The worth of a trained model on the samples that were held out."""

    loss: float
    score: float = math.nan
    """NaN where nothing scores."""


class Task(NamedTuple):
    """One run that is to be made."""

    place: int
    """That of its strength in the grid."""

    strength: float
    fold: Fold
    start: State
    """What it begins with."""


class Done(NamedTuple):
    """One run that was made."""

    task: Task
    held_out: HeldOut
    weights: State
    seconds: float


class Progress(NamedTuple):
    """The place of whoever keeps on the way where training stands."""

    load: Callable[[], Mapping[str, Any] | None] = lambda: None
    keep: Callable[[Callable[[], dict[str, Any]]], None] = lambda _: None
    """Called after each epoch with what makes the state."""


class Learner(ABC):
    """A model with a plan, that a path trains at strength after strength."""

    arrays: ClassVar[Arrays] = NumpyArrays()
    """What the arrays of its states are."""

    stacks: ClassVar[bool] = False
    """Whether it knows how to train runs side by side, unless :meth:`why_not_stacked`."""

    # --- what it is -------------------------------------------------------------------------

    @property
    @abstractmethod
    def samples(self) -> int | None:
        """The number of samples, if it is known."""

    @abstractmethod
    def penalized(self) -> list[str]:
        """The names of the penalized arrays in a state."""

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """What makes its results what they are, as plain data: penalties, training, start."""

    @abstractmethod
    def state(self) -> State:
        """A copy of all that the model is."""

    @abstractmethod
    def strength_max(self) -> float:
        """The strength at which a grid begins.

        Raises:
            PathError, NoStrengthMaxError: there is none, or none is known.
        """

    def order(self, count: int, seed: int) -> np.ndarray:
        """The samples in an order at random, as folds take them."""
        return shuffled(count, seed)

    # --- what it does -----------------------------------------------------------------------

    @abstractmethod
    def untouched(self) -> AbstractContextManager[None]:
        """A block after which the model is as it was before."""

    @abstractmethod
    def run(self, task: Task) -> Done:
        """Train as a task says."""

    def run_apart(self, task: Task) -> Done:
        """The same on a model of its own, in a process that is not the path's."""
        raise NotImplementedError

    @abstractmethod
    def plan_at(self, strength: float) -> Any:
        """The plan at a strength, for whoever asks after the path."""

    @abstractmethod
    def load(self, state: State) -> Any:
        """Give the model a state. What it returns is the user's."""

    def compact(
        self, state: State, inputs: Any, keywords: Mapping[str, Any] | None, *, biases: bool
    ) -> Compacted:
        """What ``compact`` makes of the model with a state."""
        raise PathError(
            "Path.compact is for models of PyTorch",
            "load the weights by load(which), and compact that with its framework's compact",
        )

    # --- side by side -----------------------------------------------------------------------

    def why_not_stacked(self) -> str:
        """The reason why runs cannot be stacked; empty where they can, or nobody asks."""
        return ""

    def at_once(self, folds: int) -> int:
        """The number of strengths that fit in one stack."""
        return 1

    def groups(self, tasks: Sequence[Task]) -> Iterable[list[Task]]:
        """The tasks in groups that can be stacked."""
        raise NotImplementedError

    def together(self, tasks: Sequence[Task], progress: Progress) -> list[Done]:
        """Train the tasks of a group side by side."""
        raise NotImplementedError


def outcome_of(found: Any) -> HeldOut:
    """The worth that a fit returned. Raises :class:`PathError` if that is no loss."""
    if isinstance(found, HeldOut):
        return found
    values = found if isinstance(found, Mapping) else {"loss": found}
    try:
        return HeldOut(float(values["loss"]), float(values.get("score", math.nan)))
    except (KeyError, TypeError, ValueError, RuntimeError):
        raise PathError(
            f"fit returned {found!r}",
            'return the held-out loss as a number, or {"loss": …, "score": …}',
        ) from None
