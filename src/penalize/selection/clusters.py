"""Runs on the workers of a cluster: Ray's or Dask's, as ``joblib.parallel_config`` names it.

The cluster is asked directly. joblib's backend of Ray tells nothing before all is done, and goes on
sending to actors that have died; over that of Dask joblib does not hear of a run that is given up
(joblib 1.6.0, Ray 2.60, distributed 2026.8.0). Asked directly, both begin a run again whose worker
has died, as often as they are set to, and say so when they give up.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice
from typing import Any, Protocol

from penalize.errors import LostWorkerError, PathError

Send = Callable[[bytes], Any]
"""(a task) → the future of what its run will give, as bytes."""


class Cluster(Protocol):
    """What runs on workers elsewhere, and what it needs to be asked for."""

    def width(self, jobs: int) -> int:
        """The number of runs at once, for a number of jobs that may be negative."""

    def dumps(self, each: Any) -> bytes:
        """Something as bytes, functions within functions too."""

    def sender(self, function: bytes) -> Send:
        """Give the workers a function once, for as many tasks as come."""

    def ended(self, futures: Collection[Any]) -> Any:
        """Wait for one to end."""

    def result(self, future: Any) -> bytes:
        """What it has ended with, asked for once.

        Raises what was raised there, or :class:`LostWorkerError`.
        """

    def cancel(self, futures: Collection[Any]) -> None:
        """Give up what is not needed any more."""


def spread(
    cluster: Cluster, function: Callable[[Any], Any], tasks: Iterable[Any], jobs: int
) -> Iterator[tuple[int, Any]]:
    """The number of each task, and what the function gives for it, as they come."""
    send = cluster.sender(_dumped(cluster, function))
    waiting = enumerate(tasks)
    width = cluster.width(jobs)
    running: dict[Any, int] = {}
    try:
        while True:
            for number, task in islice(waiting, width - len(running)):
                running[send(_dumped(cluster, task))] = number
            if not running:
                return
            ended = cluster.ended(running)
            yield running.pop(ended), pickle.loads(cluster.result(ended))
    finally:
        cluster.cancel(running)


def _dumped(cluster: Cluster, each: Any) -> bytes:
    try:
        return cluster.dumps(each)
    except Exception as error:  # noqa: BLE001 - whatever stands in a __reduce__
        raise pickle.PicklingError(f"{type(error).__name__}: {error}") from None


def run_there(function: bytes, task: bytes) -> bytes:
    """A run on a worker. Its function is its own, as in a process that was started for it."""
    return pickle.dumps(pickle.loads(function)(pickle.loads(task)))


def of_backend(backend: Any) -> Cluster | None:
    """The cluster behind a backend of joblib's; None if it is none of these."""
    if _is(backend, "ray.util.joblib.ray_backend", "RayBackend"):
        return _Ray(backend.ray_remote_args or {})
    if _is(backend, "joblib._dask", "DaskDistributedBackend"):
        return _Dask(backend)
    return None


def _is(backend: Any, module: str, name: str) -> bool:
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(backend, kind)


def _counted(jobs: int, there: int) -> int:
    """As joblib counts: −1 is all that there are, −2 all but one."""
    return jobs if jobs > 0 else max(there + 1 + jobs, 1)


class _Ray:
    def __init__(self, remote_args: dict[str, Any]) -> None:
        self.ray: Any = sys.modules["ray"]
        self.remote_args = remote_args
        if not self.ray.is_initialized():
            self.ray.init()  # the cluster of RAY_ADDRESS, or one on this machine

    def width(self, jobs: int) -> int:
        return _counted(jobs, int(self.ray.cluster_resources().get("CPU", 1)))

    def dumps(self, each: Any) -> bytes:
        found: bytes = self.ray.cloudpickle.dumps(each)
        return found

    def sender(self, function: bytes) -> Send:
        run = self.ray.remote(run_there).options(**self.remote_args)
        shared = self.ray.put(function)
        return lambda task: run.remote(shared, task)

    def ended(self, futures: Collection[Any]) -> Any:
        (found,), _ = self.ray.wait(list(futures), num_returns=1)
        return found

    def result(self, future: Any) -> bytes:
        try:
            found: bytes = self.ray.get(future)
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self.ray.exceptions.RayError as error:
            raise LostWorkerError("Ray", first_line(error)) from None
        return found

    def cancel(self, futures: Collection[Any]) -> None:
        for future in futures:
            self.ray.cancel(future)


class _Dask:
    def __init__(self, backend: Any) -> None:
        self.dask: Any = sys.modules["dask"]
        self.distributed: Any = sys.modules["distributed"]
        self.backend = backend
        self.client = backend.client
        self.submit_args = {"pure": False, **backend.submit_kwargs}

    def width(self, jobs: int) -> int:
        try:
            self.backend.effective_n_jobs(jobs)  # asks for a worker where they come when needed
        except TimeoutError:
            patience = self.backend.wait_for_workers_timeout
            raise PathError(
                f"the cluster of Dask has no worker after {patience} seconds",
                "start workers, or give joblib.parallel_config a longer wait_for_workers_timeout",
            ) from None
        return _counted(jobs, len(self.client.ncores()))

    def dumps(self, each: Any) -> bytes:
        found: bytes = sys.modules["cloudpickle"].dumps(each)
        return found

    def sender(self, function: bytes) -> Send:
        # As a task that gives it, and not scattered: that is lost with the worker that has it.
        with self.dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"}):
            shared = self.client.submit(bytes, function, pure=False)
        return lambda task: self.client.submit(run_there, shared, task, **self.submit_args)

    def ended(self, futures: Collection[Any]) -> Any:
        found = self.distributed.wait(list(futures), return_when="FIRST_COMPLETED").done
        return next(future for future in futures if future in found)

    def result(self, future: Any) -> bytes:
        try:
            found: bytes = future.result()
            future.release()  # else it is made again when the worker that made it is lost
        except self.distributed.KilledWorker as error:
            raise LostWorkerError("Dask", first_line(error)) from None
        return found

    def cancel(self, futures: Collection[Any]) -> None:
        self.client.cancel(list(futures))


def first_line(error: Exception) -> str:
    """What an error says, without advice and traces below."""
    return f"{type(error).__name__}: {error}".partition("\n")[0]
