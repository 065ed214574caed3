"""Tests that run on several ranks: ``@on_ranks(2)`` runs the decorated test in that many processes.

The processes are started once for each number of ranks and serve all tests after that. Every rank
runs the whole test; what one of them raises is raised here. After that the others may wait for it
in vain, so they are ended, and the next test starts new ones.
"""

from __future__ import annotations

import atexit
import datetime
import functools
import importlib.util
import multiprocessing
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch import distributed

SECONDS = 60
"""How long a rank waits for the others."""

IMPORTED = [
    *("cases", "hypothesis", "penalize.torch", "pytest", "torch._dynamo"),
    *("torch.distributed.fsdp", "torch.distributed.tensor.parallel", "torch.nn.parallel"),
]
"""What nearly all of these tests import: a process does it once, and is copied for each rank."""


def on_ranks(world: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The test runs on so many ranks, with gloo's process group as the default one."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @pytest.mark.skipif(not distributed.is_available(), reason="built without distributed")
        @functools.wraps(test)
        def on_all(**arguments: Any) -> None:
            _pool(world).run(test.__code__.co_filename, test.__name__, arguments)

        return on_all

    return decorate


class _Pool:
    def __init__(self, world: int) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(IMPORTED)
        self._folder = tempfile.TemporaryDirectory()
        self._ranks = []
        for rank in range(world):
            here, there = context.Pipe()
            arguments = (there, str(Path(self._folder.name) / "store"), rank, world)
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            there.close()
            self._ranks.append((process, here))

    def run(self, path: str, name: str, arguments: dict[str, Any]) -> None:
        for _, connection in self._ranks:
            connection.send((path, name, arguments))
        waiting = {connection: rank for rank, (_, connection) in enumerate(self._ranks)}
        while waiting:
            ready = wait(list(waiting), timeout=2 * SECONDS)
            for connection in ready:
                assert isinstance(connection, Connection)
                rank = waiting.pop(connection)
                raised = _received(connection)
                if raised:
                    self.close()
                    pytest.fail(f"on rank {rank} of {len(self._ranks)}:\n{raised}", pytrace=False)
            if not ready:
                self.close()
                pytest.fail(f"ranks {sorted(waiting.values())} do not answer", pytrace=False)

    def close(self) -> None:
        _pool.cache_clear()  # pools of other sizes end with the tests
        atexit.unregister(self.close)
        for process, connection in self._ranks:
            connection.close()
            process.kill()
            process.join()
        self._folder.cleanup()


@functools.cache
def _pool(world: int) -> _Pool:
    pool = _Pool(world)
    atexit.register(pool.close)
    _open[world] = pool
    return pool


_open: dict[int, _Pool] = {}


def stop() -> None:
    """End all ranks: no test that follows asks for them."""
    for world in [*_open]:
        _open.pop(world).close()


def _received(connection: Connection) -> str:
    try:
        answer: str = connection.recv()
    except EOFError:
        return "the process has ended"
    return answer


def _serve(connection: Connection, store: str, rank: int, world: int) -> None:
    import torch

    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        store=distributed.FileStore(store, world),
        rank=rank,
        world_size=world,
        timeout=datetime.timedelta(seconds=SECONDS),
    )
    while True:
        try:
            path, name, arguments = connection.recv()
        except EOFError:
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")
                torch.manual_seed(0)
                getattr(_module(path), name).__wrapped__(**arguments)
            connection.send("")
        except BaseException:  # noqa: BLE001
            connection.send(traceback.format_exc())


@functools.cache
def _module(path: str) -> ModuleType:
    """A test file, which pytest imports by its path too."""
    name = ".".join(Path(path).with_suffix("").parts[1:])
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
