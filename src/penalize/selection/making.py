"""A path from its arguments, once for all wings."""

from __future__ import annotations

from pathlib import Path as File
from typing import Any

from penalize.errors import PathError
from penalize.selection.folds import SEEDS, check_whole, digest, folds_of
from penalize.selection.grids import grid_of
from penalize.selection.jobs import check_jobs
from penalize.selection.learner import Learner
from penalize.selection.progress import bar
from penalize.selection.result import Path
from penalize.selection.store import Store
from penalize.selection.walk import Walk


def check_numbers(*, patience: Any, jobs: Any, seed: Any) -> None:
    """Raise :class:`PathError` for a number of a path that is none, or out of its range."""
    if patience is not None:
        check_whole("patience", patience, 1)
    if jobs is not None:
        check_jobs(jobs)
    check_whole("seed", seed, 0, SEEDS)


def made(
    learner: Learner,
    strengths: Any,
    folds: Any,
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
    """The path of a learner. The arguments are those of ``path`` in each wing."""
    parts = folds_of(folds, learner.samples, seed, refit=refit, order=learner.order)
    with learner.untouched():
        grid = grid_of(strengths, learner.strength_max)
        reason = "stacked=False" if stacked is False else learner.why_not_stacked()
        if stacked and reason:
            raise PathError(
                f"the runs cannot be stacked: {reason}", "leave stacked away to run them one by one"
            )
        is_stacked = learner.stacks and not reason
        is_warm = not is_stacked if warm is None else warm
        store = Store(
            None if saved is None else File(saved),
            {"strengths": grid, "folds": digest(parts), **learner.about(), "warm": is_warm},
            learner.arrays,
        )
        how: Any = {"stacked": is_stacked, "warm": is_warm, "patience": patience, "jobs": jobs}
        walk = Walk(learner, grid, parts, store, **how)
        try:
            with bar("path", len(grid) * len(parts), shown=progress) as advance:
                stopped = walk.go(advance)
            return walk.result("" if stacked is False else reason, stopped=stopped)
        finally:
            store.close()
