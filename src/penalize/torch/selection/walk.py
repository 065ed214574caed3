"""A path on its way: what is done, what comes next, and how one run is made."""

from __future__ import annotations

import copy
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from penalize.errors import AuditError
from penalize.report import Measured, Report
from penalize.torch.auditing.rerun import counts_kept
from penalize.torch.plan import Plan
from penalize.torch.selection.folds import ALL, Fold
from penalize.torch.selection.jobs import side_by_side
from penalize.torch.selection.result import FoldRow, Path
from penalize.torch.selection.stacking import (
    Progress,
    Run,
    at_once,
    batches_in_epoch,
    train_together,
)
from penalize.torch.selection.states import kept, penalized_names, set_state, state_of
from penalize.torch.selection.store import Store
from penalize.torch.selection.training import Fit, HeldOut, Training, outcome_of

KEPT_EVERY = 15.0
"""The seconds between two states of a stack that are kept in the file."""


class Walk:
    """A path on its way."""

    def __init__(
        self,
        fit: Fit,
        plan: Plan,
        grid: Sequence[float],
        folds: Sequence[Fold],
        store: Store,
        *,
        stacked: bool,
        warm: bool,
        patience: int | None,
        jobs: int | None,
    ) -> None:
        self.fit = fit
        self.plan = plan
        self.grid = grid
        self.folds = folds
        self.store = store
        self.stacked = stacked
        self.warm = warm
        self.patience = patience
        self.jobs = jobs
        self.start = state_of(plan.model)
        self.penalized = penalized_names(plan)
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
                (place, fold)
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
        elif self.stacked and isinstance(self.fit, Training):
            size = at_once(self.fit, self.plan, len(self.folds))
        return [range(i, min(i + size, count)) for i in range(0, count, size)]

    # --- stacked ----------------------------------------------------------------------------

    def _together(self, missing: Sequence[tuple[int, Fold]]) -> Iterator[int]:
        assert isinstance(self.fit, Training)
        places: dict[str, tuple[int, ...]] = {}
        for place, fold in missing:
            places[fold.name] = (*places.get(fold.name, ()), place)
        groups: dict[Any, list[tuple[int, Fold]]] = {}
        for place, fold in missing:  # folds with as many steps in an epoch, and the same places
            kind = batches_in_epoch(self.fit, fold), places[fold.name]
            groups.setdefault(kind, []).append((place, fold))
        for group in groups.values():
            began = time.perf_counter()
            trained = [n for n, p in self.plan.model.named_parameters() if p.requires_grad]
            starts = {fold.name: self._start(fold) for _, fold in group}
            runs = [
                Run(self.grid[p], fold, {n: starts[fold.name][n] for n in trained})
                for p, fold in group
            ]
            key = repr([(place, fold.name) for place, fold in group])
            progress = Progress(
                partial(self.store.progress, key), partial(self.store.keep, key, every=KEPT_EVERY)
            )
            ended = train_together(self.fit, self.plan, runs, progress)
            each = (time.perf_counter() - began) / len(group)
            done = [
                (place, fold, end.held_out, end.weights, each)
                for (place, fold), end in zip(group, ended, strict=True)
            ]
            self._write(done, key)
            yield len(group)

    # --- one by one -------------------------------------------------------------------------

    def _one_by_one(self, missing: Sequence[tuple[int, Fold]]) -> Iterator[int]:
        # Strengths first: within a fold each begins where the one before it has ended.
        tasks = [
            _Task((place, fold), self.grid[place], fold, self._start(fold))
            for place, fold in sorted(missing, key=lambda each: each[0])
        ]
        for (place, fold), held_out, weights, seconds in _run_all(
            self.fit, self.plan, tasks, self.jobs
        ):
            self._write([(place, fold, held_out, weights, seconds)])
            yield 1

    # --- both -------------------------------------------------------------------------------

    def _start(self, fold: Fold) -> Mapping[str, Tensor]:
        """The weights that the next run of a fold begins with."""
        before = self.store.weights(fold.name) if self.warm else None
        if before is None or not _finite(before):
            return self.start
        is_dead = any(not before[name].any() for name in self.penalized)
        return self.start if is_dead else before

    def _write(
        self, done: Iterable[tuple[int, Fold, HeldOut, dict[str, Tensor], float]], key: str = ""
    ) -> None:
        rows = []
        for place, fold, held_out, weights, seconds in done:
            row = self._row(place, fold, held_out, weights, seconds)
            keeps = fold.name == ALL or (self.warm and _finite(weights))
            rows.append((place, fold.name, row, weights if keeps else None))
            zeros = 1 - row["nonzero"] / max(row["weights"], 1)
            self.now = f"λ {row['strength']:.4g} loss {row['loss']:.4g} zeros {zeros:.0%}"
        self.store.add(rows, key=key, keep_all=ALL)

    def _row(
        self,
        place: int,
        fold: Fold,
        held_out: HeldOut,
        weights: Mapping[str, Tensor],
        seconds: float,
    ) -> dict[str, Any]:
        penalized = [weights[name] for name in self.penalized]
        status = "ok"
        if not math.isfinite(held_out.loss):
            status = f"loss {held_out.loss}"
        if not _finite(weights):
            status = "weights not finite"
        return {
            "strength": self.grid[place],
            "fold": fold.name,
            "loss": held_out.loss,
            "score": held_out.score,
            "nonzero": sum(int(w.count_nonzero()) for w in penalized),
            "weights": sum(w.numel() for w in penalized),
            "norm": math.sqrt(sum(float(w.double().square().sum()) for w in penalized)),
            "status": status,
            "how": "stacked" if self.stacked else "one by one",
            "seconds": seconds,
        }

    def _is_enough(self) -> bool:
        """True if the loss has not been the least for as many strengths as patience has."""
        if self.patience is None:
            return False
        losses = [each.loss for each in Path(self.plan, self._rows(), {}).summary]
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
        return Path(self.plan, self._rows(), weights, reason, stopped=stopped)


# --- one run ------------------------------------------------------------------------------------


class _Task(NamedTuple):
    key: tuple[int, Fold]
    factor: float
    fold: Fold
    start: Mapping[str, Tensor]


class _Done(NamedTuple):
    key: tuple[int, Fold]
    held_out: HeldOut
    weights: dict[str, Tensor]
    seconds: float


def _run_all(fit: Fit, plan: Plan, tasks: Sequence[_Task], jobs: int | None) -> Iterator[_Done]:
    if jobs is None:
        yield from (_run(fit, plan, task) for task in tasks)
        return
    for _, done in side_by_side(partial(_run_copy, fit, plan), tasks, jobs, "path"):
        yield done


def _run_copy(fit: Fit, plan: Plan, task: _Task) -> _Done:
    """A run on a model of its own."""
    twin = copy.deepcopy(plan)
    with untouched(twin):
        return _run(fit, twin, task)


def _run(fit: Fit, plan: Plan, task: _Task) -> _Done:
    key, factor, fold, start = task
    began = time.perf_counter()
    set_state(plan.model, start)
    plan.model.zero_grad()
    torch.manual_seed(0)  # what a run draws does not depend on those before it
    at = plan.scaled(factor)
    try:
        held_out = outcome_of(fit(at, fold.train, fold.valid))
        if not (at.applied.attached or at.applied.by_loss):
            rows = [Measured(t.name, 0.0, what=repr(t.regularizer)) for t in at.targets()]
            raise AuditError(
                f"{Report(rows)}\nfit(plan, train, valid) has to apply the plan that it is given, "
                "by plan.attach(optimizer) or by plan.penalty() in the loss."
            )
    finally:  # whoever keeps the traceback of a fit that raised keeps its optimizer, too
        for attachment in at.attachments():
            attachment.detach()
        at.applied.warned = True
    return _Done(key, held_out, state_of(plan.model), time.perf_counter() - began)


@contextmanager
def untouched(plan: Plan) -> Iterator[None]:
    """The model, the plan's count of steps and what is drawn at random are put back.

    Of several threads one is within it at a time: they share what is drawn at random.
    """
    with _ONE, kept(plan.model), torch.random.fork_rng(), counts_kept(plan):
        yield


_ONE = threading.RLock()


def _finite(weights: Mapping[str, Tensor]) -> bool:
    return all(bool(w.isfinite().all()) for w in weights.values())
