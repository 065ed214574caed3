"""``path``: train at many strengths, hold samples out, and tell which strength to choose."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path as File
from typing import Any

from penalize.errors import AppliedTwiceError, PathError, StrengthError
from penalize.regularizers.base import check_strength, described
from penalize.torch.plan import Plan
from penalize.torch.selection.folds import SEEDS, check_whole, digest, folds_of
from penalize.torch.selection.jobs import check_jobs
from penalize.torch.selection.progress import bar
from penalize.torch.selection.result import Path
from penalize.torch.selection.stacking import why_not_stacked
from penalize.torch.selection.states import state_of
from penalize.torch.selection.store import Store
from penalize.torch.selection.strengths import geometric, strength_max
from penalize.torch.selection.training import Fit, Training, name_of
from penalize.torch.selection.training import digest as digest_of_tensors
from penalize.torch.selection.walk import Walk, untouched

MOST = 10_000
"""More strengths than that are no path."""

AUTO = 20
"""The number of strengths that ``"auto"`` has."""

SMALLEST = 1e-3
"""The smallest of them, as a part of the largest."""

ROUNDING = 1e-5
"""The part by which they begin above :func:`strength_max`, so that
rounding leaves nothing there, too."""


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
        jobs: how many runs there are at once, when they are not stacked: in processes of joblib's,
            or on the workers of a cluster of Ray or Dask that ``joblib.parallel_config`` names.
            Models and functions must then be picklable. Threads are refused: they share what torch
            draws at random.
        progress: whether to show a bar, with the strength, held-out loss and zeros of the last run,
            in a terminal or notebook, if rich is installed.
        seed: of the folds at random.

    Raises:
        PathError: the strengths, folds or other arguments make no path, or the plan has penalties
            on outputs.
        NoStrengthMaxError: the strengths are to be found, and a penalty has no largest one.
        ResultsError: the file is damaged, locked by another process, of another version, or has
            the results of something else. It is left alone.
        LostWorkerError: the processes of a run were killed again and again.
        AuditError: fit applies nothing of the plan that it is given.
        AppliedTwiceError: the plan, or another with the same penalties, is attached already.
    """
    _check(fit, plan, patience=patience, jobs=jobs, seed=seed)
    samples = fit.samples if isinstance(fit, Training) else getattr(fit, "samples", None)
    parts = folds_of(folds, samples, seed, refit=refit)
    with untouched(plan):
        grid = _grid(strengths, fit, plan)
        reason = "stacked=False" if stacked is False else why_not_stacked(fit, plan)
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
                "model at the start": digest_of_tensors(state_of(plan.model).values()),
                "fit": fit.describe() if isinstance(fit, Training) else name_of(fit),
                "warm": is_warm,
            },
        )
        how: Any = {"stacked": not reason, "warm": is_warm, "patience": patience, "jobs": jobs}
        walk = Walk(fit, plan, grid, parts, store, **how)
        try:
            with bar("path", len(grid) * len(parts), shown=progress) as advance:
                stopped = walk.go(advance)
            return walk.result("" if stacked is False else reason, stopped=stopped)
        finally:
            store.close()


# --- the arguments ------------------------------------------------------------------------------


def _check(fit: Any, plan: Any, *, patience: Any, jobs: Any, seed: Any) -> None:
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
    if patience is not None:
        check_whole("patience", patience, 1)
    if jobs is not None:
        check_jobs(jobs)
    check_whole("seed", seed, 0, SEEDS)


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
        check_whole("strengths", count, 1, MOST)
        top = strength_max(lambda: fit.data_loss(plan.model), plan)
        top *= 1 + ROUNDING
        return geometric(top, SMALLEST * top, count)
    if isinstance(count, str) or not isinstance(count, Iterable):
        raise PathError(f"strengths={strengths!r}", 'expected "auto", a number of them, or a list')
    try:
        found = [check_strength("path", "strength", s) for s in islice(count, MOST + 1)]
    except StrengthError as error:
        raise PathError(f"strengths={strengths!r}", str(error)) from None
    if not found:
        raise PathError(
            f"strengths={strengths!r} has none", "pass a list: a generator gives its values once"
        )
    if len(found) > MOST:
        raise PathError("strengths has too many", f"expected at most {MOST:,}")
    if len(set(found)) < len(found):
        raise PathError(f"strengths={found!r}", "expected each of them once")
    return sorted(found, reverse=True)
