"""A path on its way: what is done, what comes next, and what is written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from penalize.selection.arrays import State, is_finite
from penalize.selection.folds import ALL, Fold
from penalize.selection.jobs import side_by_side
from penalize.selection.learner import Done, Learner, Progress, Task
from penalize.selection.result import FoldRow, Path
from penalize.selection.store import Store

KEPT_EVERY = 15.0
"""The seconds between two states of a stack that are kept in the file."""


class Walk:
    """A path on its way."""

    def __init__(
        self,
        learner: Learner,
        grid: Sequence[float],
        folds: Sequence[Fold],
        store: Store,
        *,
        stacked: bool,
        warm: bool,
        patience: int | None,
        jobs: int | None,
    ) -> None:
        self.learner = learner
        self.grid = grid
        self.folds = folds
        self.store = store
        self.stacked = stacked
        self.warm = warm
        self.patience = patience
        self.jobs = jobs
        self.start = learner.state()
        self.penalized = learner.penalized()
        self.now = ""
        """What the last run has found, for who watches."""

    def go(self, advance: Callable[[int, str], None]) -> bool:
        """Do what is not done yet, from strong to weak. True if it ended early."""
        for places in self._batches():
            if self._is_enough():
                return True
            known = self.store.rows()
            done = sum((place, fold.name) in known for place in places for fold in self.folds)
            advance(done, self.now)
            missing = [
                Task(place, self.grid[place], fold, self._start(fold))
                for fold in self.folds
                for place in places
                if (place, fold.name) not in known
            ]
            if not missing:
                continue
            for count in self._together(missing) if self.stacked else self._one_by_one(missing):
                advance(count, self.now)
        return False

    def _batches(self) -> list[range]:
        """The places that are worked at together. What depends on others comes after them."""
        count = len(self.grid)
        size = count
        if self.warm or self.patience is not None:
            size = 1
        elif self.stacked:
            size = self.learner.at_once(len(self.folds))
        return [range(i, min(i + size, count)) for i in range(0, count, size)]

    def _together(self, missing: Sequence[Task]) -> Iterator[int]:
        for group in self.learner.groups(missing):
            key = repr([(task.place, task.fold.name) for task in group])
            progress = Progress(
                partial(self.store.progress, key), partial(self.store.keep, key, every=KEPT_EVERY)
            )
            self._write(self.learner.together(group, progress), key)
            yield len(group)

    def _one_by_one(self, missing: Sequence[Task]) -> Iterator[int]:
        # Strengths first: within a fold each begins where the one before it has ended.
        tasks = sorted(missing, key=lambda task: task.place)
        for done in self._runs(tasks):
            self._write([done])
            yield 1

    def _runs(self, tasks: Sequence[Task]) -> Iterator[Done]:
        if self.jobs is None:
            yield from map(self.learner.run, tasks)
        else:
            for _, done in side_by_side(self.learner.run_apart, tasks, self.jobs, "path"):
                yield done

    def _start(self, fold: Fold) -> State:
        """The weights that the next run of a fold begins with."""
        before = self.store.weights(fold.name) if self.warm else None
        if before is None or not is_finite(before, self.learner.arrays):
            return self.start
        is_dead = any(not self._doubles(before, name).any() for name in self.penalized)
        return self.start if is_dead else before

    def _doubles(self, weights: State, name: str) -> np.ndarray:
        return self.learner.arrays.doubles(weights[name])

    def _write(self, made: Iterable[Done], key: str = "") -> None:
        rows = []
        for done in made:
            place, fold = done.task.place, done.task.fold
            row = self._row(done)
            keeps = fold.name == ALL or (self.warm and is_finite(done.weights, self.learner.arrays))
            rows.append((place, fold.name, row, done.weights if keeps else None))
            zeros = 1 - row["nonzero"] / max(row["weights"], 1)
            self.now = f"λ {row['strength']:.4g} loss {row['loss']:.4g} zeros {zeros:.0%}"
        self.store.add(rows, key=key, keep_all=ALL)

    def _row(self, done: Done) -> dict[str, Any]:
        penalized = [self._doubles(done.weights, name) for name in self.penalized]
        status = "ok"
        if not math.isfinite(done.held_out.loss):
            status = f"loss {done.held_out.loss}"
        if not is_finite(done.weights, self.learner.arrays):
            status = "weights not finite"
        return {
            "strength": self.grid[done.task.place],
            "fold": done.task.fold.name,
            "loss": done.held_out.loss,
            "score": done.held_out.score,
            "nonzero": sum(int(np.count_nonzero(w)) for w in penalized),
            "weights": sum(w.size for w in penalized),
            "norm": math.sqrt(sum(float(np.square(w).sum()) for w in penalized)),
            "status": status,
            "how": "stacked" if self.stacked else "one by one",
            "seconds": done.seconds,
        }

    def _is_enough(self) -> bool:
        """True if the loss has not been the least for as many strengths as patience has."""
        if self.patience is None:
            return False
        losses = [each.loss for each in Path(self.learner, self._rows(), {}).summary]
        known = [(loss, -place) for place, loss in enumerate(losses) if math.isfinite(loss)]
        return bool(known) and len(losses) - 1 + min(known)[1] >= self.patience

    def _rows(self) -> list[FoldRow]:
        records = self.store.rows()
        places = range(len(self.grid))
        keys = [(place, fold.name) for place in places for fold in self.folds]
        return [FoldRow(**records[key]) for key in keys if key in records]

    def result(self, reason: str = "", *, stopped: bool = False) -> Path:
        """The path as far as it is known."""
        known = {s: self.store.weights(ALL, place) for place, s in enumerate(self.grid)}
        weights = {strength: found for strength, found in known.items() if found is not None}
        return Path(self.learner, self._rows(), weights, reason, stopped=stopped)
