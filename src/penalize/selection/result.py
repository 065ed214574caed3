"""The results of a path: a row per strength and fold, the chosen strengths, and pictures."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path as File
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from penalize.errors import MissingPackageError, PathError
from penalize.selection.arrays import State
from penalize.selection.folds import ALL
from penalize.tables import table

if TYPE_CHECKING:
    from pandas import DataFrame

    from penalize.compacting.report import Compacted
    from penalize.selection.learner import Learner

Which = Literal["best", "one_se"] | float


@dataclass(frozen=True, slots=True)
class FoldRow:
    """One run: a strength on a fold."""

    strength: float
    fold: str
    """``"0"``, ``"1"``, …; ``"all"`` trained on every sample, and its loss is of these."""

    loss: float
    """The loss on the samples held out."""

    score: float
    """The score on them; NaN where nothing scores."""

    nonzero: int
    """The number of penalized weights that are not zero."""

    weights: int
    """The number of penalized weights."""

    norm: float
    """The Euclidean norm of all penalized weights."""

    status: str
    """``"ok"``, or what was not finite."""

    how: str
    """``"stacked"`` with others, or ``"one by one"``."""

    seconds: float
    """The time that it took; of a stack its part."""


@dataclass(frozen=True, slots=True)
class Summary:
    """One strength, over its folds."""

    strength: float
    loss: float
    """The mean of the held-out losses; NaN where a fold has none that is finite."""

    error: float
    """The standard error of that mean: the standard deviation over the folds / √folds."""

    score: float
    score_error: float
    nonzero: float
    """The part of the penalized weights that is not zero: of the fold "all", or else the mean. NaN
    where no weight is penalized, but outputs are."""

    norm: float


class Path:
    """A regularization path. Prints as a table, with both choices marked.

    Args:
        learner: what was trained.
        rows: the runs that were made.
        weights: those of the fold ``"all"`` by strength.
        reason: why runs were not stacked; empty where they were.
        stopped: whether it ended before the weakest strength.
    """

    def __init__(
        self,
        learner: Learner,
        rows: Sequence[FoldRow],
        weights: Mapping[float, State],
        reason: str = "",
        *,
        stopped: bool = False,
    ) -> None:
        self.rows = tuple(rows)
        self.reason = reason
        self.stopped = stopped
        self._learner = learner
        self._weights = weights

    # --- as a table -------------------------------------------------------------------------

    @property
    def table(self) -> DataFrame | list[dict[str, Any]]:
        """The rows, one run each: a pandas DataFrame; a list of dictionaries without pandas."""
        rows = [asdict(row) for row in self.rows]
        try:
            import pandas as pd
        except ImportError:
            return rows
        return pd.DataFrame(rows)

    @property
    def strengths(self) -> list[float]:
        """The strengths from the largest to the smallest."""
        return list(dict.fromkeys(row.strength for row in self.rows))

    @property
    def summary(self) -> tuple[Summary, ...]:
        """The summaries, one per strength, from the largest to the smallest."""
        return tuple(self._summary(strength) for strength in self.strengths)

    def _summary(self, strength: float) -> Summary:
        rows = [row for row in self.rows if row.strength == strength]
        held_out = [row for row in rows if row.fold != ALL]
        sizes = [row for row in rows if row.fold == ALL] or held_out
        loss, error = _mean([row.loss for row in held_out])
        score, score_error = _mean([row.score for row in held_out])
        return Summary(
            strength,
            loss,
            error,
            score,
            score_error,
            statistics.fmean(_part(row) for row in sizes),
            statistics.fmean(row.norm for row in sizes),
        )

    # --- the choice -------------------------------------------------------------------------

    @property
    def best(self) -> float:
        """The strength with the least mean loss on held-out samples.

        Raises:
            PathError: no strength has a finite loss in every fold, or there are no folds.
        """
        return self._best().strength

    @property
    def one_se(self) -> float:
        """The largest strength whose mean loss is within one standard error of the least.

        It is the simplest model that cannot be told from the best one (Breiman, Friedman, Olshen
        and Stone, Classification and regression trees, 1984). A single fold has no standard error,
        and so chooses the best.

        Raises:
            PathError: as for :attr:`best`.
        """
        best = self._best()
        error = 0.0 if math.isnan(best.error) else best.error  # one fold has none
        return max(s.strength for s in self.summary if s.loss <= best.loss + error)

    def _best(self) -> Summary:
        known = [each for each in self.summary if math.isfinite(each.loss)]
        if not known:
            folds = any(row.fold != ALL for row in self.rows)
            raise PathError(
                "no strength has a finite loss in every fold"
                if folds
                else "there are no folds, so nothing tells which strength is best",
                "look at path.table for what happened" if folds else "pass folds=5",
            )
        return min(known, key=lambda each: each.loss)

    def _strength(self, which: Which) -> float:
        if which in ("best", "one_se"):
            return float(getattr(self, which))
        strengths = self.strengths
        if not isinstance(which, int | float) or which not in strengths:
            raise PathError(
                f"{which!r} is no strength of the path",
                f'expected "best", "one_se", or one of {strengths}',
            )
        return float(which)

    def plan(self, which: Which = "one_se") -> Any:
        """The plan at a strength, to train with it as you are used to: attach it, in PyTorch.

        Raises:
            PathError: there is no such strength.
        """
        return self._learner.plan_at(self._strength(which))

    # --- the weights ------------------------------------------------------------------------

    def weights(self, name: str) -> Any:
        """One parameter along the path, trained on every sample: (strengths, *shape).

        Raises:
            PathError: there is no such parameter, or nothing was trained on every sample.
        """
        kept = self._kept()
        if name not in kept[0]:
            raise PathError(f"there is no parameter {name!r}", f"expected one of {list(kept[0])}")
        return self._learner.arrays.stacked([weights[name] for weights in kept])

    def doubles(self, name: str) -> np.ndarray:
        """The same in float64, as NumPy's: (strengths, elements).

        Raises:
            PathError: as for :meth:`weights`.
        """
        found = self._learner.arrays.doubles(self.weights(name))
        return found.reshape(len(found), -1)

    @property
    def penalized(self) -> list[str]:
        """The names of the parameters that are penalized, as the model calls them."""
        return self._learner.penalized()

    def load(self, which: Which = "one_se") -> Any:
        """Give the model the weights that were trained on every sample at a strength.

        Buffers, such as running statistics, are of that training, too. In JAX, where parameters
        are values, they are returned; a module of Flax NNX is given them as well.

        Raises:
            PathError: there is no such strength, or nothing was trained on every sample.
        """
        strength = self._strength(which)
        self._kept()
        return self._learner.load(self._weights[strength])

    def compact(
        self,
        inputs: Any,
        keywords: Mapping[str, Any] | None = None,
        which: Which = "one_se",
        *,
        biases: bool = False,
    ) -> Compacted:
        """A smaller model of the weights at a strength, without the units that are dead there.

        Of a path of PyTorch. The path's own model is left as it is; see
        :func:`penalize.torch.compact` for the arguments and what else is raised.

        Raises:
            PathError: there is no such strength, nothing was trained on every sample, or this is a
                path of another framework.
        """
        strength = self._strength(which)
        self._kept()
        return self._learner.compact(self._weights[strength], inputs, keywords, biases=biases)

    def _kept(self) -> list[State]:
        if not self._weights:
            raise PathError("nothing was trained on every sample", "pass refit=True to path")
        return [self._weights[strength] for strength in self.strengths if strength in self._weights]

    # --- to be looked at --------------------------------------------------------------------

    def __str__(self) -> str:
        lines = [
            (
                f"{each.strength:.4g}",
                _shown(each.loss),
                _shown(each.error),
                _shown(each.score),
                "" if math.isnan(each.nonzero) else f"{100 * each.nonzero:.1f} %",
                _shown(each.norm),
                ", ".join(word for word, s in self.chosen.items() if s == each.strength),
            )
            for each in self.summary
        ]
        header = ("strength", "loss", "± error", "score", "nonzero", "norm", "choice")
        return "\n".join([table(header, lines), *self.notes])

    __repr__ = __str__  # what a notebook shows

    @property
    def notes(self) -> list[str]:
        """Remarks that a reader of the table should know."""
        bad = [row for row in self.rows if row.status != "ok"]
        notes = [f"{len(bad)} of {len(self.rows)} runs were not finite"] if bad else []
        notes += ["stopped early: the loss had ceased to fall"] if self.stopped else []
        notes += [f"one by one: {self.reason}"] if self.reason else []
        strengths, best = self.strengths, self.chosen.get("best")
        if len(strengths) > 1 and best in (strengths[0], strengths[-1]):
            end, way = ("weakest", "smaller") if best == strengths[-1] else ("strongest", "larger")
            notes.append(f"the {end} strength is the best: there may be better ones that are {way}")
        return notes

    @property
    def chosen(self) -> dict[str, float]:
        """The strengths that are chosen, in words; empty where nothing tells."""
        try:
            return {"best": self.best, "one standard error": self.one_se}
        except PathError:
            return {}

    def plot(self, file: str | File) -> None:
        """Draw the path into a picture: PNG, SVG or what else matplotlib writes.

        Weights (few) or their norms along the path; the held-out loss with its standard errors and
        both choices; and the score, or loss, against how many weights are left.

        Raises:
            MissingPackageError: matplotlib is not installed.
        """
        self._pictures().draw(self, File(file))

    def html(self, file: str | File) -> None:
        """Write a page with the pictures and the table, which needs nothing from a network.

        Raises:
            MissingPackageError: matplotlib is not installed.
        """
        self._pictures().write_page(self, File(file))

    def _pictures(self) -> Any:
        try:
            import_module("matplotlib")
        except ImportError:
            raise MissingPackageError("matplotlib", "a picture of a path", "select") from None
        from penalize.selection import pictures

        return pictures


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """The mean and its standard error; NaN where a value is not finite, or there are too few."""
    if not values or not all(map(math.isfinite, values)):
        return math.nan, math.nan
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.fmean(values), error


def _part(row: FoldRow) -> float:
    return row.nonzero / row.weights if row.weights else math.nan


def _shown(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4g}"
