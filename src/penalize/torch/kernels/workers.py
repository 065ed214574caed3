"""Threads that run a kernel together, as many as PyTorch uses.

They are PyTorch's own, where OpenMP has these: they wait for the next work in a busy loop, which
others would have to share a core with. Elsewhere, and in a process that may be a fork, where
OpenMP's are no more, they are a pool of ours.
"""

from __future__ import annotations

import ctypes
import os
from array import array
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

import torch

from penalize.torch.forks import may_be_forked
from penalize.torch.kernels.native import Native

Task = Callable[[int], None]
"""What each thread is to do; it is given its number."""


class _Pool:
    """Threads that wait for work; as many as were ever asked for."""

    def __init__(self) -> None:
        self.size = 0
        self.queue: SimpleQueue[tuple[Future[None], Task, int]] = SimpleQueue()
        self._lock = Lock()

    def grown_to(self, size: int) -> int:
        """How many threads there are of so many; fewer, where no other can be started."""
        if self.size < size:
            # The system has no more, or the interpreter is going down.
            with self._lock, suppress(RuntimeError):
                while self.size < size:
                    Thread(
                        target=_work_off, args=(self.queue,), name="penalize", daemon=True
                    ).start()
                    self.size += 1
        return min(size, self.size)


def _work_off(queue: SimpleQueue[tuple[Future[None], Task, int]]) -> None:
    while True:
        future, task, number = queue.get()
        if future.set_running_or_notify_cancel():
            try:
                task(number)
            except BaseException as error:  # noqa: BLE001  # raised where it is waited for
                future.set_exception(error)
            else:
                future.set_result(None)
        del future, task  # while it waits it keeps nothing alive


_pool = _Pool()


def _after_fork() -> None:
    """A child starts without threads."""
    global _pool  # noqa: PLW0603
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def in_threads(task: Task, count: int) -> None:
    """Call a task with each number below a count, the calling thread's with 0, and wait for all.

    The task shares out its work itself. So a thread that has not begun when the others are done is
    not waited for, and then does nothing; and there may be fewer threads.
    """
    pool = _pool
    others: list[Future[None]] = []
    try:
        for number in range(1, 1 + pool.grown_to(count - 1)):
            others.append(Future())
            pool.queue.put((others[-1], task, number))
        task(0)
    finally:
        begun = [other for other in others if not other.cancel()]
        wait(begun)
    for other in begun:
        other.result()


def run(kernel: Native, work: array[int], count: int, alive: Any = None) -> None:
    """Have as many threads run a kernel, and wait for all; they share the work among themselves.

    Args:
        kernel: what each of them calls.
        work: what it is given, see :mod:`penalize.torch.kernels.printer`.
        count: how many.
        alive: what has to live as long as any of them works.
    """
    address, _ = work.buffer_info()

    def task(number: int, _: Any = (work, alive)) -> None:
        kernel.call(address)

    if count == 1:
        task(0)
    elif not may_be_forked() and (team := openmp()) is not None:
        team(kernel.address, address, count, 0)
    else:
        in_threads(task, count)


@cache
def openmp() -> Callable[[int, int, int, int], None] | None:
    """Runs a function of one argument in each of so many threads of PyTorch's; None where it
    cannot be reached.

    It is what compilers make of a parallel region (GNU libgomp manual, Implementing PARALLEL
    construct), of the library that PyTorch itself has loaded.
    """
    if "OpenMP" not in torch.__config__.parallel_info().partition("ATen parallel backend:")[2]:
        return None
    folder = Path(torch.__file__).parent / "lib"
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib"):
        with suppress(OSError, AttributeError):
            team = ctypes.CDLL(str(folder / name)).GOMP_parallel
            team.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
            team.restype = None
            return team
    return None
