"""Runs side by side, each in a process of its own: joblib's, or those of a cluster."""

from __future__ import annotations

import os
import pickle
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any

from penalize.errors import LostWorkerError, MissingPackageError, PathError
from penalize.selection.clusters import first_line, of_backend, spread

RETRIES = 3
"""How often in a row runs are begun again whose process was killed, as Ray and Dask have it."""

Home = tuple[str, int, int]
"""Who asks for runs: its copy of this module, its process and thread. The first since processes of
two machines, or of two containers, may have the same number; the second since a copy may fork.
"""

_COPY = uuid.uuid4().hex


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
    joblib = _joblib(owner)
    cluster = of_backend(joblib.parallel.get_active_backend()[0])
    return int(joblib.effective_n_jobs(jobs)) if cluster is None else cluster.width(jobs)


def side_by_side(
    function: Callable[[Any], Any], tasks: Sequence[Any], jobs: int, owner: str
) -> Iterator[tuple[int, Any]]:
    """The number of each task, and what a function gives for it, as they end.

    ``jobs`` processes compute at once: of joblib's, or of the cluster that its backend names.

    Not in threads: what torch draws at random, and Python's filters of warnings, are one for all
    threads of a process, so that runs would change each other's numbers. A run whose process was
    killed is begun again.

    Raises:
        PathError: something cannot be sent to another process, or the backend that joblib was
            given has threads, or gives nothing before all is done.
        LostWorkerError: the processes of a run were killed again and again.
        MissingPackageError: joblib is not installed.
    """
    joblib = _joblib(owner)
    home = _COPY, os.getpid(), threading.get_ident()
    run = partial(_in_its_process, home, function)
    backend, _ = joblib.parallel.get_active_backend()
    cluster = of_backend(backend)
    if cluster is None and not backend.supports_return_generator:
        raise PathError(
            f"joblib's backend is {type(backend).__name__}, which gives nothing before all runs "
            "have ended, so that all would be lost with one",
            'take joblib\'s default, "loky", or "ray" or "dask"',
        )
    try:
        if cluster is not None:
            yield from spread(cluster, run, tasks, jobs)
        else:
            yield from _by_joblib(joblib, run, tasks, jobs)
    except pickle.PicklingError as error:
        # joblib has the traceback of whoever sends them as the text of the cause.
        cause = str(error.__cause__ or error).strip('"\n ').rpartition("\n")[2]
        raise PathError(
            f"jobs={jobs} sends the fit, the model and the rules to other processes, and they "
            f"cannot be pickled ({cause})",
            "define what they use at the top of a module, or leave jobs away",
        ) from None


def _by_joblib(
    joblib: Any, run: Callable[[Any], Any], tasks: Sequence[Any], jobs: int
) -> Iterator[tuple[int, Any]]:
    """In processes of joblib's. One that is killed takes its pool along: a new one goes on."""
    call = joblib.delayed(_numbered)
    left = dict(enumerate(tasks))
    killed = 0
    while left:
        # Not in batches: what of a batch is done would be lost with the rest.
        pool = joblib.Parallel(jobs, return_as="generator_unordered", batch_size=1)
        try:
            for number, found in pool(call(run, each) for each in list(left.items())):
                killed = 0
                del left[number]
                yield number, found
        except BrokenProcessPool as error:
            killed += 1
            if killed > RETRIES:
                raise LostWorkerError("joblib", first_line(error)) from None


def _numbered(run: Callable[[Any], Any], each: tuple[int, Any]) -> tuple[int, Any]:
    number, task = each
    return number, run(task)


def _joblib(owner: str) -> Any:
    try:
        import joblib
    except ImportError:
        raise MissingPackageError("joblib", f"{owner}(jobs=…)", "select") from None
    return joblib


def _in_its_process(home: Home, function: Callable[[Any], Any], task: Any) -> Any:
    here = _COPY, os.getpid(), threading.get_ident()
    if here[:2] == home[:2] and here != home:
        raise PathError(
            "jobs would run in threads, which share what torch draws at random",
            "take a backend of joblib with processes, such as its default; within a run of joblib "
            "itself, where the default is threads, leave jobs away",
        )
    return function(task)
