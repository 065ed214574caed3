"""A study of Optuna's that several processes may work at: compared, counted, kept alive."""

from __future__ import annotations

import json
import math
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from penalize.errors import PathError
from penalize.selection.result import Summary
from penalize.selection.store import differences
from penalize.torch.selection.databases import Database

LOOK = 1.0
"""The seconds between two looks at trials that others work at."""

T = TypeVar("T")
ENDED = TrialState.COMPLETE, TrialState.FAIL
SEEDS = 2**32 - 1
"""The largest seed that Optuna's samplers take."""

_OURS = "penalize"
_ELSEWHERE = "give it another name"

_ALIVE = sqlalchemy.text(
    "SELECT t.trial_id FROM trials t JOIN trial_heartbeats h ON h.trial_id = t.trial_id "
    "WHERE t.state = 'RUNNING'"
)


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna warns of what is experimental, and that not its own loop sends the signs of life."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", "Heartbeat of storage is supposed to be used")
        yield


class SeededByNumber(BaseSampler):
    """Optuna's TPE, with a seed of its own for each trial.

    With one for all, processes that work at one study would draw the same numbers, and a study that
    goes on those that it began with.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._of_trial: tuple[int, BaseSampler] = -1, TPESampler(seed=seed)

    def _sampler(self, trial: FrozenTrial) -> BaseSampler:
        number, sampler = self._of_trial
        if number != trial.number:
            sampler = TPESampler(seed=(self.seed * 1_000_003 + trial.number) % (SEEDS + 1))
            self._of_trial = trial.number, sampler
        return sampler

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """See Optuna's ``BaseSampler``."""
        return self._sampler(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See Optuna's ``BaseSampler``."""
        return self._sampler(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        """See Optuna's ``BaseSampler``."""
        return self._sampler(trial).sample_independent(study, trial, param_name, param_distribution)


class Shared:
    """A study in a storage, which other processes may work at, too.

    Args:
        storage: a URL; a storage of Optuna's; or None, for one in memory.
        name: of the study.
        sampler: Optuna's.

    Raises:
        PathError: the URL is none.
        ResultsError: the database cannot be reached, read or written.
        MissingPackageError: the driver of the database is not installed.
    """

    def __init__(self, storage: Any, name: str, sampler: BaseSampler) -> None:
        self.now = ""
        """What the last trial has found, for who watches."""
        self._patiently = Database(storage, f"The study {name!r}")
        self.storage = self._patiently.opened()
        self.study = self._patiently.at_first(
            lambda: optuna.create_study(
                storage=self.storage, study_name=name, sampler=sampler, load_if_exists=True
            )
        )

    def __enter__(self) -> Shared:
        return self

    def __exit__(self, *_: object) -> None:
        """Close what a URL was opened for. The study can be asked on: it opens it again."""
        self._patiently.close(self.storage)

    # --- whose it is ------------------------------------------------------------------------

    def is_of(self, about: Mapping[str, Any]) -> None:
        """Note what the study is of; raise :class:`PathError` if it is of something else."""
        about = json.loads(json.dumps(about))
        if _OURS not in self._patiently(lambda: self.study.user_attrs):
            if self._patiently(lambda: self.study.get_trials(deepcopy=False)):
                raise PathError(f"{self._patiently.place} has trials of its own", _ELSEWHERE)
            self._patiently(lambda: self.study.set_user_attr(_OURS, about))
        # As it stands there: another process may have been faster.
        known = self._patiently(lambda: self.study.user_attrs)[_OURS]
        if told := differences(known, about):
            raise PathError(f"{self._patiently.place} is of something else ({told})", _ELSEWHERE)

    # --- trials -----------------------------------------------------------------------------

    @property
    def _beats(self) -> bool:
        """True if trials give signs of life, so that it is known which are alive."""
        return isinstance(self.storage, RDBStorage) and self.storage.heartbeat_interval is not None

    def left(self, trials: int) -> int:
        """The number of trials that nobody has begun, of so many.

        If all are begun it waits for those of others: one whose process dies has to be begun again.
        """
        while True:
            ended, alive = self._patiently(self._counts)
            if ended >= trials:
                return 0
            if ended + alive < trials:
                return trials - ended - alive
            time.sleep(LOOK)

    def _counts(self) -> tuple[int, int]:
        """The trials that have ended, and those that others work at."""
        with _quiet():
            fail_stale_trials(self.study)
        trials = self.study.get_trials(deepcopy=False)
        again = {number for t in trials for number in t.system_attrs.get("retry_history", ())}
        ended = sum(t.state in ENDED and t.number not in again for t in trials)
        if not self._beats:
            return ended, 0
        with self.storage.engine.connect() as connection:
            alive = set(connection.execute(_ALIVE).scalars())
        return ended, sum(t.state == TrialState.RUNNING and t._trial_id in alive for t in trials)

    @contextmanager
    def begun(self, count: int) -> Iterator[list[Trial]]:
        """A block with so many new trials, which show that they are alive."""
        trials = [self._patiently(self._asked) for _ in range(count)]
        stop = threading.Event()
        thread = threading.Thread(target=self._keep_alive, args=(trials, stop), daemon=True)
        if self._beats:
            thread.start()
        try:
            yield trials
        finally:
            stop.set()
            if self._beats:
                thread.join()

    def _asked(self) -> Trial:
        with _quiet():
            trial = self.study.ask()
        if self._beats:
            self.storage.record_heartbeat(trial._trial_id)
        return trial

    def _keep_alive(self, trials: Sequence[Trial], stop: threading.Event) -> None:
        while not stop.wait(self.storage.heartbeat_interval):
            for trial in trials:
                try:
                    self.storage.record_heartbeat(trial._trial_id)
                except Exception:  # noqa: BLE001 - the next one may get there
                    continue

    def drawn(self, draw: Callable[[Trial], T], trial: Trial) -> T:
        """The strengths of a trial."""
        return self._patiently(lambda: draw(trial))

    def tell(self, trial: Trial, summary: Summary | None) -> None:
        """End a trial with what it is worth; without that, or if its loss is no number, it fails.

        If others have taken it for dead that stands: it has been begun again.
        """

        def told() -> None:
            if summary is None or math.isnan(summary.loss):
                self.study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
                return
            trial.set_user_attr("error", summary.error)
            trial.set_user_attr("nonzero", summary.nonzero)
            self.study.tell(trial, summary.loss, skip_if_finished=True)
            self.now = f"loss {summary.loss:.4g}"

        with suppress(UpdateFinishedTrialError):
            self._patiently(told)
