"""``tune``: strengths of their own for each rule, by a study of Optuna."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn

from penalize.errors import MissingPackageError, PathError, ResultsError
from penalize.ranges import Search, chosen, ranges_in
from penalize.regularizers.base import Regularizer
from penalize.rules import parse
from penalize.selection.describing import name_of
from penalize.selection.folds import check_whole, digest, folds_of
from penalize.selection.jobs import check_jobs, processes, side_by_side
from penalize.selection.progress import bar
from penalize.selection.result import Summary
from penalize.selectors import Selector
from penalize.torch.regularize import regularize
from penalize.torch.selection.learner import drawn_order
from penalize.torch.selection.path import path
from penalize.torch.selection.states import state_of
from penalize.torch.selection.training import Fit, Training
from penalize.torch.selection.training import digest as digest_of_tensors

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.samplers import BaseSampler

    from penalize.torch.selection.studies import Shared

STORAGE = "sqlite:///penalize-study.db"

_SEEDS = 2**32 - 1
"""The largest seed that Optuna's samplers take."""

Pairs = list[tuple[Selector, Regularizer | None]]


@dataclass(frozen=True)
class Tuned:
    """A study of strengths, and the rules with the best ones."""

    study: Study
    """Optuna's: its trials, its plots, ``study.trials_dataframe()``."""

    searched: Pairs

    @property
    def rules(self) -> Pairs:
        """The rules with the strengths of the best trial, as ``regularize`` takes them.

        Raises:
            PathError: no trial has ended with a finite loss.
        """
        best = self.study.best_trials
        if not best:
            raise PathError("no trial has ended with a finite loss", "look at study.trials")
        params = best[0].params
        return _with_numbers(self.searched, lambda name, _: float(params[name]))


def tune(
    fit: Fit,
    model: nn.Module,
    rules: Any,
    folds: int | Iterable[tuple[Any, Any]] = 5,
    *,
    trials: int = 50,
    storage: Any = STORAGE,
    name: str = "penalize",
    sampler: BaseSampler | None = None,
    jobs: int = 1,
    seed: int = 0,
    progress: bool = True,
) -> Tuned:
    """Choose a strength for each ``search(low, high)`` in the rules, by trials of Optuna.

    Each trial trains on every fold, as :func:`path` does at one strength, and is worth the mean
    loss on what is held out. A trial whose loss is not finite fails, and the study goes on. Trials
    are in the storage as soon as they end: a study that was killed goes on from there, and several
    machines that name one storage and one study work at it together. A trial whose process has died
    is begun again, with the same strengths, when it has given no sign of life for a minute.

    Args:
        fit: as for :func:`path`.
        model: it is copied for each trial, and left as it is.
        rules: as for ``regularize``, with ranges: ``{"encoder": L1(search(1e-6, 1e-2))}``.
        folds: as for :func:`path`.
        trials: how many the study is to have, with those that it has already and those of other
            processes, which are waited for.
        storage: a URL of a database or a storage of Optuna's; None: in memory.
        name: of the study in the storage.
        sampler: Optuna's; None: its TPE, with a seed made of ``seed`` and the number of the trial.
        jobs: how many trials run at once, in processes as for :func:`path`; each gives the numbers
            that it gives alone. They are drawn together, and their losses are told to the sampler
            in their order: the same seed and jobs make the same study. Model, fit and rules must be
            picklable.
        seed: of the folds and the sampler, less than 2³²; the same in all processes.
        progress: whether to show a bar.

    Raises:
        RulesError, SelectorError: the rules are malformed.
        PathError: no strength is searched, the study in the storage is of something else, or what
            :func:`path` says.
        ResultsError: the storage cannot be reached, read or written, or is full.
        LostWorkerError: the processes of a trial were killed again and again.
        MissingPackageError: optuna, joblib where there are jobs, or the driver of the database is
            not installed.
    """
    check_jobs(jobs)
    check_whole("trials", trials, 1)
    check_whole("seed", seed, 0, _SEEDS)
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise MissingPackageError("optuna", "tune", "select") from None
    from penalize.torch.selection.studies import SeededByNumber, Shared

    pairs = [(rule.selector, rule.regularizer) for rule in parse(rules, "rule", "").rules]
    space = dict(_spaces(pairs))
    if not space:
        raise PathError(
            "no strength in the rules is searched",
            "write L1(search(1e-6, 1e-2)) where one is to be chosen, or use path",
        )
    if folds is None:
        raise PathError("folds=None holds nothing out", "trials are compared by what is: pass 5")
    splits = list(folds) if isinstance(folds, Iterable) else folds
    about = _about(fit, model, pairs, splits, seed)
    run = partial(_one, fit, model, splits, seed)
    width = 1 if jobs == 1 else processes(jobs, "tune")

    def draw(trial: Trial) -> Pairs:
        return _with_numbers(
            pairs,
            lambda key, found: trial.suggest_float(key, found.low, found.high, log=found.log),
        )

    chosen_by = SeededByNumber(seed) if sampler is None else sampler
    done = 0
    with (
        Shared(storage, name, chosen_by) as study,
        bar("tune", trials, shown=progress) as advance,
    ):
        study.is_of(about)
        while count := min(width, left := study.left(trials)):
            advance(trials - left - done, study.now)
            done = trials - left
            _at_once(study, count, draw, run, jobs)
        advance(trials - done, study.now)
    return Tuned(study.study, pairs)


def _about(fit: Fit, model: nn.Module, pairs: Pairs, splits: Any, seed: int) -> dict[str, Any]:
    """What the losses of a study depend on."""
    samples = fit.samples if isinstance(fit, Training) else getattr(fit, "samples", None)
    return {
        "rules": {name: repr(regularizer) for name, regularizer in _named(pairs)},
        "fit": fit.describe() if isinstance(fit, Training) else name_of(fit),
        "model at the start": digest_of_tensors(state_of(model).values()),
        "folds": digest(folds_of(splits, samples, seed, refit=False, order=drawn_order)),
    }


def _one(fit: Fit, model: nn.Module, splits: Any, seed: int, rules: Pairs) -> Summary:
    """The worth of a trial with these rules."""
    plan = regularize(copy.deepcopy(model), rules)
    found = path(fit, plan, [1.0], splits, refit=False, progress=False, seed=seed)
    (summary,) = found.summary
    return summary


def _at_once(
    study: Shared,
    count: int,
    draw: Callable[[Trial], Pairs],
    run: Callable[[Pairs], Summary],
    jobs: int,
) -> None:
    """Trials side by side, whose losses are told in order. One that has none fails."""
    with study.begun(count) as trials:
        ended: dict[int, Summary] = {}
        told = 0
        try:
            rules = [study.drawn(draw, trial) for trial in trials]
            alone = enumerate(map(run, rules))
            found = alone if jobs == 1 else side_by_side(run, rules, count, "tune")
            for number, summary in found:
                ended[number] = summary
                while told in ended:
                    study.tell(trials[told], ended[told])
                    told += 1
        except ResultsError:  # of the study itself: whoever goes on with it finds them not alive
            raise
        except BaseException:
            for number in range(told, count):
                study.tell(trials[number], ended.get(number))
            raise


def _spaces(pairs: Pairs) -> Iterable[tuple[str, Search]]:
    for name, regularizer in _named(pairs):
        yield from ranges_in(regularizer, name)


def _named(pairs: Pairs) -> Iterable[tuple[str, Regularizer | None]]:
    """Each rule by what it selects; by its number, too, where that is not the only one."""
    words = [repr(selector) for selector, _ in pairs]
    for i, (word, (_, regularizer)) in enumerate(zip(words, pairs, strict=True)):
        number = f" #{i + 1}" if words.count(word) > 1 else ""
        yield f"{word}{number}: {type(regularizer).__name__}", regularizer


def _with_numbers(pairs: Pairs, choose: Callable[[str, Search], float]) -> Pairs:
    return [
        (selector, chosen(regularizer, choose, name))
        for (selector, _), (name, regularizer) in zip(pairs, _named(pairs), strict=True)
    ]
