"""``path``: train at many strengths, hold samples out, and tell which strength to choose."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path as File
from typing import Any, NamedTuple

import torch
from torch import Tensor

from penalize.errors import (
    AppliedTwiceError,
    AuditError,
    MissingPackageError,
    PathError,
    StrengthError,
)
from penalize.regularizers.base import check_strength, described
from penalize.report import Measured, Report
from penalize.torch.plan import Plan
from penalize.torch.selection.folds import ALL, Fold, digest, folds_of
from penalize.torch.selection.result import Path, Row
from penalize.torch.selection.stacking import (
    Progress,
    Run,
    at_once,
    batches_in_epoch,
    set_state,
    state_of,
    train_together,
    why_one_by_one,
)
from penalize.torch.selection.store import Store
from penalize.torch.selection.strengths import geometric, strength_max
from penalize.torch.selection.training import (
    Fit,
    HeldOut,
    Training,
    name_of,
    outcome_of,
)
from penalize.torch.selection.training import digest as digest_of_weights

AUTO = 20
"""How many strengths ``"auto"`` has."""

SMALLEST = 1e-3
"""The smallest of them, as a part of the largest."""

ROUNDING = 1e-5
"""How far above :func:`strength_max` they begin, so that rounding leaves nothing there, too."""

KEPT_EVERY = 15.0
"""Seconds between two states of a stack that are kept in the file."""


def path(
    fit: Fit,
    plan: Plan,
    strengths: str | int | Sequence[float] = "auto",
    folds: int | Iterable[tuple[Any, Any]] | None = 5,
    *,
    stacked: bool | None = None,
    warm: bool | None = None,
    patience: int | None = None,
    refit: bool = True,
    saved: str | File | None = None,
    jobs: int | None = None,
    progress: bool = True,
    seed: int = 0,
) -> Path:
    """Train at each strength, on each fold, and compare what is held out.

    At the strength s every regularizer of the plan is multiplied by s: with ``L1(1.0)`` in the plan
    s is its strength, and other strengths in it are weights beside each other. The model is left as
    it was; ``result.plan()`` is the plan at the chosen strength, ``result.load()`` gives the model
    the weights that were found there.

    Where ``fit`` is a :class:`Training` of a small or middle model, its runs are trained side by
    side, each as it would be alone: ``result.reason`` says why not. Otherwise they run one after
    another, from strong to weak, each from the weights that the one before it has ended with.

    Args:
        fit: a :class:`Training`; or a function ``fit(plan, train, valid)`` that trains
            ``plan.model`` in place with this plan applied, on the samples of the numbers ``train``,
            and returns the loss on those of ``valid`` (or ``{"loss": …, "score": …}``).
        plan: what :func:`penalize.torch.regularize` returned. It must not be attached.
        strengths: ``"auto"``: 20 from :func:`strength_max` down to a thousandth of it, evenly on a
            logarithmic scale; a number: as many of these; or the strengths.
        folds: how many folds at random; pairs (train, valid) of sample numbers, as scikit-learn's
            splitters give them; None for none, and no choice.
        stacked: whether to train runs side by side. None: where that is possible.
        warm: whether a run begins with the weights of the one before it. None: unless stacked. A
            parameter that has become zero as a whole passes no gradient in a deep network; the next
            run then begins anew.
        patience: end after so many strengths in a row whose loss is above the least one.
        refit: whether to train on every sample, too, which is what ``weights`` and ``load`` need.
        saved: a file for the results (SQLite). Rows are written as they come; a path that was
            killed goes on from there when it is called again.
        jobs: how many runs joblib has at once, in the backend of ``joblib.parallel_config``, when
            they are not stacked. Models and functions must then be picklable.
        progress: whether to show a bar in a terminal or notebook, if rich is installed.
        seed: of the folds at random.

    Raises:
        PathError: the strengths, folds or other arguments make no path, or the plan has penalties
            on outputs.
        NoStrengthMaxError: the strengths are to be found, and a penalty has no largest one.
        ResultsError: the file is damaged, or has the results of something else. It is left alone.
        AuditError: fit applies nothing of the plan that it is given.
        AppliedTwiceError: the plan, or another with the same penalties, is attached already.
    """
    _check(fit, plan, patience, jobs)
    samples = fit.samples if isinstance(fit, Training) else getattr(fit, "samples", None)
    parts = folds_of(folds, samples, seed, refit=refit)
    with _untouched(plan):
        grid = _grid(strengths, fit, plan)
        reason = "stacked=False" if stacked is False else why_one_by_one(fit, plan)
        if stacked and reason:
            raise PathError(
                f"the runs cannot be stacked: {reason}", "leave stacked away to run them one by one"
            )
        is_warm = bool(reason) if warm is None else warm
        store = Store(
            None if saved is None else File(saved),
            {
                "penalties": {t.name: described(t.regularizer) for t in plan.targets()},
                "strengths": grid,
                "folds": digest(parts),
                "model at the start": digest_of_weights(state_of(plan.model).values()),
                "fit": fit.describe() if isinstance(fit, Training) else name_of(fit),
                "warm": is_warm,
            },
        )
        how: Any = {"stacked": not reason, "warm": is_warm, "patience": patience, "jobs": jobs}
        walk = _Walk(fit, plan, grid, parts, store, **how)
        try:
            with _bar(len(grid) * len(parts), shown=progress) as advance:
                stopped = walk.go(advance)
            return walk.result("" if stacked is False else reason, stopped=stopped)
        finally:
            store.close()


class _Walk:
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
        self.penalized = _names(plan)

    def go(self, advance: Callable[[int], None]) -> bool:
        """Do what is not done yet, from strong to weak. Whether it ended early."""
        for places in self._batches():
            if self._is_enough():
                return True
            known = self.store.rows()
            advance(sum((place, fold.name) in known for place in places for fold in self.folds))
            missing = [
                (place, fold)
                for fold in self.folds
                for place in places
                if (place, fold.name) not in known
            ]
            if not missing:
                continue
            for count in self._together(missing) if self.stacked else self._one_by_one(missing):
                advance(count)
        return False

    def _batches(self) -> list[range]:
        """The places that are worked at together. What depends on others comes after them."""
        count = len(self.grid)
        size = at_once(self.plan, len(self.folds)) if self.stacked else count
        if self.warm or self.patience is not None:
            size = 1
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
        """Whether the loss has not been the least for as many strengths as patience has."""
        if self.patience is None:
            return False
        losses = [each.loss for each in self.result().summary]
        known = [(loss, -place) for place, loss in enumerate(losses) if math.isfinite(loss)]
        return bool(known) and len(losses) - 1 + min(known)[1] >= self.patience

    def result(self, reason: str = "", *, stopped: bool = False) -> Path:
        """What is known."""
        records = self.store.rows()
        rows = [
            Row(**records[place, fold.name])
            for place in range(len(self.grid))
            for fold in self.folds
            if (place, fold.name) in records
        ]
        kept = {s: self.store.weights(ALL, place) for place, s in enumerate(self.grid)}
        weights = {strength: found for strength, found in kept.items() if found is not None}
        return Path(self.plan, rows, weights, reason, stopped=stopped)


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
    try:
        from joblib import Parallel, delayed
    except ImportError:
        raise MissingPackageError("joblib", "path(jobs=…)", "select") from None
    parallel = Parallel(n_jobs=jobs, return_as="generator_unordered")
    yield from parallel(delayed(_run_copy)(fit, plan, task) for task in tasks)


def _run_copy(fit: Fit, plan: Plan, task: _Task) -> _Done:
    """A run on a model of its own, beside which others may run."""
    twin = copy.deepcopy(plan)
    with _untouched(twin):
        return _run(fit, twin, task)


def _run(fit: Fit, plan: Plan, task: _Task) -> _Done:
    key, factor, fold, start = task
    began = time.perf_counter()
    set_state(plan.model, start)
    plan.model.zero_grad()
    torch.manual_seed(0)  # what a run draws does not depend on those before it
    scaled = plan.scaled(factor)
    held_out = outcome_of(fit(scaled, fold.train, fold.valid))
    if not (scaled.was_attached or scaled.applied_by_loss):
        rows = [Measured(t.name, 0.0, what=repr(t.regularizer)) for t in scaled.targets()]
        raise AuditError(
            f"{Report(rows)}\nfit(plan, train, valid) has to apply the plan that it is given, by "
            "plan.attach(optimizer) or by plan.penalty() in the loss."
        )
    for attachment in scaled.attachments():
        attachment.detach()
    scaled.warned = True
    return _Done(key, held_out, state_of(plan.model), time.perf_counter() - began)


@contextmanager
def _untouched(plan: Plan) -> Iterator[None]:
    """The model, the plan's count of steps and what is drawn at random are put back."""
    model, state = plan.model, state_of(plan.model)
    gradients = [(p, p.grad) for p in model.parameters()]
    modes = [(m, m.training) for m in model.modules()]
    try:
        with torch.random.fork_rng(), plan.counts_kept():
            yield
    finally:
        set_state(model, state)
        for p, g in gradients:
            p.grad = g
        for m, training in modes:
            m.training = training


# --- the arguments ------------------------------------------------------------------------------


def _check(fit: Any, plan: Any, patience: Any, jobs: Any) -> None:
    if not callable(fit):
        raise PathError(
            f"fit is {fit!r}",
            "pass a Training, or a function fit(plan, train, valid) that returns the held-out loss",
        )
    if not isinstance(plan, Plan):
        raise PathError(
            f"plan is a {type(plan).__name__}", "pass what penalize.torch.regularize returned"
        )
    for attachment in plan.attachments():
        names = [target.name for target in plan.targets()]
        raise AppliedTwiceError(names, str(attachment), "path", "Call detach() on it first")
    if not plan.targets():
        raise PathError("the plan penalizes nothing", "give regularize a rule that does")
    for name, value, least in (("patience", patience, 1), ("jobs", jobs, None)):
        wrong = not isinstance(value, int) or isinstance(value, bool) or value == 0
        if value is not None and (wrong or (least is not None and value < least)):
            raise PathError(f"{name}={value!r}", "expected a whole number, or None")


def _grid(strengths: Any, fit: Fit, plan: Plan) -> list[float]:
    count = AUTO if isinstance(strengths, str) and strengths == "auto" else strengths
    if isinstance(count, int) and not isinstance(count, bool):
        if not isinstance(fit, Training):
            raise PathError(
                f"strengths={strengths!r}, and the loss of the data is not known, as fit is a "
                "function",
                "give them: strengths=geometric(top, top / 1000, 20) with top = "
                "strength_max(loss, plan)",
            )
        top = strength_max(lambda: fit.data_loss(plan.model), plan)
        top *= 1 + ROUNDING
        return geometric(top, SMALLEST * top, count)
    if isinstance(count, str) or not isinstance(count, Iterable):
        raise PathError(f"strengths={strengths!r}", 'expected "auto", a number of them, or a list')
    try:
        found = [check_strength("path", "strength", s) for s in count]
    except StrengthError as error:
        raise PathError(f"strengths={strengths!r}", str(error)) from None
    if not found or len(set(found)) < len(found):
        raise PathError(f"strengths={strengths!r}", "expected at least one, each of them once")
    return sorted(found, reverse=True)


def _names(plan: Plan) -> list[str]:
    """What is penalized and trained, as the model calls it."""
    names = {id(p): name for name, p in plan.model.named_parameters()}
    found = [names[id(p)] for t in plan.targets() for p in t.parameters if p.requires_grad]
    return list(dict.fromkeys(found))


def _finite(weights: Mapping[str, Tensor]) -> bool:
    return all(bool(w.isfinite().all()) for w in weights.values())


@contextmanager
def _bar(total: int, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar, and what moves it on."""
    try:
        from rich.console import Console
        from rich.progress import Progress as Bar
    except ImportError:
        shown = False
    console = Console(stderr=True) if shown else None
    if console is None or not (console.is_terminal or console.is_jupyter):
        yield lambda _: None
        return
    with Bar(console=console, transient=True) as bar:
        task = bar.add_task("path", total=total)
        yield lambda count: bar.advance(task, count)
