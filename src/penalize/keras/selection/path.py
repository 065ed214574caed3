"""``path`` in Keras: train at many strengths, hold samples out, and tell which to choose."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path as File
from typing import Any

from penalize.errors import PathError
from penalize.keras.plan import Plan
from penalize.keras.selection.learner import KerasLearner
from penalize.keras.selection.training import Training
from penalize.selection.making import check_numbers, made
from penalize.selection.result import Path
from penalize.selection.settings import check_wing


def path(
    fit: Training,
    plan: Plan,
    strengths: str | int | Sequence[float] = "auto",
    folds: int | Iterable[tuple[Any, Any]] | None = 5,
    *,
    warm: bool = True,
    patience: int | None = None,
    refit: bool = True,
    saved: str | File | None = None,
    progress: bool = True,
    seed: int = 0,
) -> Path:
    """Train at each strength, on each fold, and compare what is held out.

    At the strength s every regularizer of the plan is multiplied by s. The model is trained by its
    own ``fit``, as it was compiled, run after run, from strong to weak; on TensorFlow and JAX each
    run is traced anew. In the end weights, optimizer and plan are as they were. ``result.plan()``
    puts the plan at the chosen strength in force in place of this one, ``result.load()`` gives the
    model the weights that were found there.

    Args:
        fit: a :class:`Training`.
        plan: what :func:`penalize.keras.regularize` returned, for a compiled model;
            ``mode="proximal"`` or ``"halfspace"`` for exact zeros. The averages of ``"halfspace"``
            begin anew in each run, and after the path.
        strengths: ``"auto"``: 20 from the least strength that leaves nothing down to a thousandth
            of it, evenly on a logarithmic scale; a number: as many of these; or the strengths.
        folds: how many folds at random; pairs (train, valid) of sample numbers, as scikit-learn's
            splitters give them; None for none, and no choice.
        warm: whether a run begins with the weights of the one before it. The state of the
            optimizer begins anew.
        patience: end after so many strengths in a row whose loss is above the least one.
        refit: whether to train on every sample, too, which is what ``weights`` and ``load`` need.
        saved: a file for the results (SQLite), from which a path that was killed goes on.
        progress: whether to show a bar in a terminal or notebook, if rich is installed.
        seed: of the folds at random.

    Raises:
        PathError: the strengths, folds or other arguments make no path, the model is not compiled,
            or a variable has a regularizer of Keras' own class in the loss.
        NoStrengthMaxError: the strengths are to be found, and a penalty has no largest one.
        ResultsError: the file is damaged, or has the results of something else.
    """
    check_wing(fit, plan, Training, Plan)
    if not plan.penalized():
        raise PathError("the plan penalizes nothing", "give regularize a rule that does")
    check_numbers(patience=patience, jobs=None, seed=seed)
    return made(
        KerasLearner(fit, plan),
        strengths,
        folds,
        warm=warm,
        patience=patience,
        refit=refit,
        saved=saved,
        progress=progress,
        seed=seed,
    )
