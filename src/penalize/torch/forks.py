"""Whether this process is a fork, in which threads of the one that it came from are no more.

OpenMP does not know: a child that asks for the threads of its parent waits for them without end.
"""

from __future__ import annotations

import multiprocessing
import os

_forked: list[None] = []
"""Not empty in a process that was forked since this module was loaded."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _forked.append(None))


def may_be_forked() -> bool:
    """Whether it is a fork, or a child of multiprocessing's, which may have been one before."""
    return bool(_forked) or multiprocessing.parent_process() is not None
