"""The process of a script that runs within ours: what it does to it, and what it must not."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def streams_kept_open() -> Iterator[None]:
    """A block in which closing standard output or error only writes out what is in them."""
    streams: dict[int, Any] = {id(stream): stream for stream in (sys.stdout, sys.stderr)}
    with contextlib.ExitStack() as stack:
        for stream in streams.values():
            stream.close = stream.flush
            stack.callback(delattr, stream, "close")
        yield


@contextlib.contextmanager
def threads_ended_by(kind: type[BaseException]) -> Iterator[None]:
    """A block in which this exception ends a thread without a word, as it ends the script."""
    before = threading.excepthook

    def hook(args: Any) -> None:
        if not issubclass(args.exc_type, kind):
            before(args)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before
