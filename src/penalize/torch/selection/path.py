"""``path``: train at many strengths, hold samples out, and tell which strength to choose."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path as File
from typing import Any

from penalize.errors import AppliedTwiceError, PathError
from penalize.selection.making import check_numbers, made
from penalize.selection.result import Path
from penalize.selection.settings import told
from penalize.torch.plan import Plan
from penalize.torch.selection.learner import ModuleLearner
from penalize.torch.selection.training import Fit


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
    _check(fit, plan)
    check_numbers(patience=patience, jobs=jobs, seed=seed)
    return made(
        ModuleLearner(fit, plan),
        strengths,
        folds,
        stacked=stacked,
        warm=warm,
        patience=patience,
        refit=refit,
        saved=saved,
        jobs=jobs,
        progress=progress,
        seed=seed,
    )


def _check(fit: Any, plan: Any) -> None:
    if not callable(fit):
        raise PathError(
            f"fit is {told(fit)}",
            "pass a Training, or a function fit(plan, train, valid) that returns the held-out loss",
        )
    if not isinstance(plan, Plan):
        raise PathError(f"plan is {told(plan)}", "pass what penalize.torch.regularize returned")
    for attachment in plan.attachments():
        names = [target.name for target in plan.targets()]
        raise AppliedTwiceError(names, str(attachment), "path", "Call detach() on it first")
    if not plan.targets() and not plan.activities:
        raise PathError("the plan penalizes nothing", "give regularize a rule that does")
