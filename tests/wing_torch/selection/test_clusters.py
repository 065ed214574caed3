"""Runs on two workers of Dask and of Ray: what one process gives, whatever is killed."""

import multiprocessing
import sqlite3
import threading
from multiprocessing import forkserver
from pathlib import Path

import joblib
import pytest
from torch import nn
from wing_torch.selection import runs
from wing_torch.selection.problems import network, training
from wing_torch.selection.runs import FOLDS, Killed, alone, paths, same

from penalize import L1, AuditError, LostWorkerError, PathError, kernels, search
from penalize.torch import path, regularize, tune

RULES = {kernels: L1(search(1e-4, 1.0))}


def dask():
    import dask
    from distributed import Client, LocalCluster

    # Workers are copies of one process that has imported PyTorch.
    multiprocessing.set_forkserver_preload([runs.__name__, "distributed"])
    forkserver.ensure_running()
    how = {
        "distributed.worker.multiprocessing-method": "forkserver",
        "distributed.scheduler.allowed-failures": 1,
    }
    with (
        dask.config.set(how),
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50
        ) as workers,
        Client(workers),
        joblib.parallel_config("dask"),
    ):
        yield


def ray():
    import ray
    from ray.util.joblib import register_ray

    tests = str(Path(__file__).parents[2])  # of which workers have to find the functions
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=50,
        runtime_env={"env_vars": {"PYTHONPATH": tests}},
    )
    register_ray()
    with joblib.parallel_config("ray", ray_remote_args={"max_retries": 1}):
        yield
    ray.shutdown()


@pytest.fixture(
    scope="module", params=[dask, pytest.param(ray, marks=pytest.mark.breadth)], autouse=True
)
def cluster(request):
    yield from request.param()


@pytest.mark.parametrize(
    "jobs", [2, *(pytest.param(n, marks=pytest.mark.breadth) for n in (1, -1))]
)
def test_a_path_is_what_it_is_in_one_process(jobs):
    same(paths(training(epochs=2), jobs=jobs), alone())


@pytest.mark.breadth
def test_a_warm_path_is_too():
    def warm(jobs):
        plan = regularize(network(), L1(1.0))
        settings = {"stacked": False, "warm": True, "progress": False, "jobs": jobs}
        return path(training(epochs=2), plan, [0.1, 0.01], FOLDS[:1], **settings)

    same(warm(2), warm(None))


def test_a_worker_that_is_killed_loses_nothing(tmp_path):
    """The run that it had begins again; so may one whose result was on its way from there."""
    same(paths(Killed(tmp_path, first=2), jobs=2), alone())
    assert 6 + 1 <= len(list(tmp_path.iterdir())) <= 6 + 2


@pytest.mark.breadth
def test_what_kills_every_worker_is_given_up_and_the_rest_is_kept(tmp_path):
    saved = tmp_path / "path.sqlite"
    with pytest.raises(LostWorkerError, match=r"gave up a run.*killed again and again \(.*memory"):
        paths(Killed(tmp_path, first=3, times=99), jobs=2, saved=saved)
    assert saved.exists()
    ended = len(
        sqlite3.connect(saved).execute("SELECT * FROM record WHERE kind = 'row'").fetchall()
    )
    assert 2 <= ended <= 3
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    same(paths(Killed(fresh, times=0), jobs=2, saved=saved), alone())
    assert len(list(fresh.iterdir())) == 6 - ended


def test_a_study_is_what_it_is_in_one_process(tmp_path):
    def study(fit, jobs):
        settings = {"trials": 4, "storage": None, "progress": False, "jobs": jobs}
        found = tune(fit, network(nn.Tanh(), nn.Dropout(0.5)), RULES, FOLDS, **settings)
        return [(trial.params, trial.value) for trial in found.study.trials]

    assert study(Killed(tmp_path), 2) == study(training(epochs=2), 1)


def raises(plan, train, valid):
    raise KeyError("no such thing")


def test_errors_come_as_they_are():
    lock = threading.Lock()
    with pytest.raises(KeyError, match="no such thing"):
        paths(raises, jobs=2)
    with pytest.raises(AuditError, match="never applied"):
        paths(lambda plan, train, valid: 1.0, jobs=2)
    with pytest.raises(PathError, match=r"cannot be pickled \(TypeError: cannot pickle '_thread.l"):
        paths(lambda plan, train, valid: lock.locked(), jobs=2)
