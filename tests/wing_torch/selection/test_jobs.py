"""Runs in processes: who may compute them, and what becomes of those whose process is killed."""

import os
import threading
from concurrent.futures.process import BrokenProcessPool

import joblib
import pytest
from torch import nn
from wing_torch.selection.problems import network, training
from wing_torch.selection.runs import Killed, alone, paths, same

from penalize import L1, LostWorkerError, PathError
from penalize.selection import jobs
from penalize.torch import path, regularize


def small(**more):
    plan = regularize(network(nn.Tanh(), nn.Dropout(0.5)), L1(1.0))
    return path(training(epochs=1), plan, [0.1, 0.01], 2, progress=False, warm=False, **more)


class Pool:
    """joblib's, whose processes are killed when they are given these tasks, as often."""

    def __init__(self, deaths):
        self.deaths = deaths
        self.given = []

    def delayed(self, function):
        return lambda *arguments: (function, arguments)

    def Parallel(self, jobs, return_as, batch_size):
        assert (return_as, batch_size) == ("generator_unordered", 1)
        return self.runs

    def runs(self, calls):
        self.given.append(0)
        for function, arguments in calls:
            self.given[-1] += 1
            number, task = function(*arguments)
            if self.deaths.get(task, 0):
                self.deaths[task] -= 1
                raise BrokenProcessPool("a process was killed\nand more about it")
            yield number, task


def test_a_pool_that_is_killed_is_made_anew_for_what_is_left():
    pool = Pool({"c": 1, "d": 3})
    found = list(jobs._by_joblib(pool, str, list("abcde"), 2))
    assert found == list(enumerate("abcde"))
    assert pool.given == [3, 2, 1, 1, 2]


def test_what_kills_every_pool_is_given_up():
    pool = Pool({"c": 4})
    runs = jobs._by_joblib(pool, str, list("abc"), 2)
    assert [next(runs), next(runs)] == [(0, "a"), (1, "b")]
    with pytest.raises(
        LostWorkerError, match=r"^joblib gave.*\(BrokenProcessPool: a process was k"
    ):
        next(runs)
    assert pool.given == [3, 1, 1, 1]


@pytest.mark.breadth
def test_a_process_of_joblibs_is_killed(tmp_path):
    same(paths(Killed(tmp_path, first=3), jobs=2), alone())


def test_a_backend_that_tells_nothing_before_the_end_is_refused():
    said = (
        r'backend is MultiprocessingBackend, which gives nothing before.*"loky", or "ray" or "dask"'
    )
    with joblib.parallel_config("multiprocessing"), pytest.raises(PathError, match=said):
        small(jobs=2)


def test_a_process_of_another_machine_may_have_our_number():
    """Containers often begin to count at 1: only a thread of this very process is refused."""
    process, thread = os.getpid(), threading.get_ident()
    run = jobs._in_its_process
    assert run((jobs._COPY, process, thread), str, 3) == "3"
    assert run(("another", process, thread + 1), str, 3) == "3"
    assert run((jobs._COPY, process + 1, thread + 1), str, 3) == "3"
    with pytest.raises(PathError, match="Jobs would run in threads"):
        run((jobs._COPY, process, thread + 1), str, 3)


def test_workers_of_dask_that_are_threads_or_none():
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=1, processes=False, dashboard_address=":0", silence_logs=50
        ) as workers,
        Client(workers) as client,
    ):
        with joblib.parallel_config("dask"), pytest.raises(PathError, match="run in threads"):
            small(jobs=2)
        workers.scale(0)
        client.sync(workers._correct_state)
        none = joblib.parallel_config("dask", wait_for_workers_timeout=0.1)
        with none, pytest.raises(PathError, match=r"Dask has no worker after 0\.1 seconds; start"):
            small(jobs=2)
