"""Runs side by side, each in a process of its own, by joblib."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from penalize.errors import MissingPackageError, PathError

Home = tuple[int, int]
"""Process and thread of whoever asks for runs."""


def check_jobs(jobs: Any) -> None:
    """Raise :class:`PathError` for what is no number of jobs; as joblib has it, negative ones
    count from that of all processors.
    """
    if not isinstance(jobs, int) or isinstance(jobs, bool) or jobs == 0:
        raise PathError(f"jobs={jobs!r}", "expected a whole number other than 0")


def processes(jobs: int, owner: str) -> int:
    """The number of runs at once, for a number of jobs that may be negative.

    Raises:
        MissingPackageError: joblib is not installed.
    """
    return int(_joblib(owner).effective_n_jobs(jobs))


def side_by_side(
    function: Callable[[Any], Any],
    tasks: Iterable[Any],
    jobs: int,
    owner: str,
    *,
    ordered: bool = False,
) -> Iterator[Any]:
    """The results of a function for each task, computed in ``jobs`` processes.

    Not in threads: what torch draws at random, and Python's filters of warnings, are one for all
    threads of a process, so that runs would change each other's numbers.

    Raises:
        PathError: something cannot be sent to another process, or the backend that joblib was
            given has threads.
        MissingPackageError: joblib is not installed.
    """
    joblib = _joblib(owner)
    kind = "generator" if ordered else "generator_unordered"
    home = os.getpid(), threading.get_ident()
    run = joblib.delayed(_in_its_process)
    try:
        yield from joblib.Parallel(n_jobs=jobs, return_as=kind)(
            run(home, function, task) for task in tasks
        )
    except pickle.PicklingError as error:
        # joblib has the traceback of whoever sends them as the text of the cause.
        cause = str(error.__cause__ or error).strip('"\n ').rpartition("\n")[2]
        raise PathError(
            f"jobs={jobs} sends the fit, the model and the rules to other processes, and they "
            f"cannot be pickled ({cause})",
            "define what they use at the top of a module, or leave jobs away",
        ) from None


def _joblib(owner: str) -> Any:
    try:
        import joblib
    except ImportError:
        raise MissingPackageError("joblib", f"{owner}(jobs=…)", "select") from None
    return joblib


def _in_its_process(home: Home, function: Callable[[Any], Any], task: Any) -> Any:
    here = os.getpid(), threading.get_ident()
    if here[0] == home[0] and here != home:
        raise PathError(
            "jobs would run in threads, which share what torch draws at random",
            "take a backend of joblib with processes, such as its default; within a run of joblib "
            "itself, where the default is threads, leave jobs away",
        )
    return function(task)
