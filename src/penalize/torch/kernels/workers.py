"""Threads that run a kernel together, as many as PyTorch uses."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from queue import SimpleQueue
from threading import Lock, Thread

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
