"""Threads that run a kernel together, as many as PyTorch uses."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

_pools: dict[int, ThreadPoolExecutor] = {}
"""By how many threads a pool has. What a process has forked starts without."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)


def in_threads(task: Callable[[int], None], count: int) -> None:
    """Call a task with each number below a count, the calling thread's with 0, and wait for all.

    The task shares out its work itself. So a thread that has not begun when the others are done is
    not waited for.
    """
    others = []
    if count > 1:
        pool = _pools.get(count)
        if pool is None:
            pool = _pools[count] = ThreadPoolExecutor(count - 1, "penalize")
        with suppress(RuntimeError):  # the interpreter is going down
            others = [pool.submit(task, number) for number in range(1, count)]
    task(0)
    for other in others:
        if not other.cancel():
            other.result()
