"""Where the user's code called us: ``train.py:14``, for plans and messages; and who called."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_DEMO = os.path.join(_PACKAGE, "demo") + os.sep  # a user like any other
_standing: ContextVar[str] = ContextVar("standing", default="")


@contextmanager
def called_at(place: str) -> Iterator[None]:
    """Within the block, this is where the user called us: a callback is called by its trainer."""
    token = _standing.set(place)
    try:
        yield
    finally:
        _standing.reset(token)


def callsite() -> str:
    """File name and line of the nearest caller outside this package."""
    place = _standing.get()
    if place:
        return place
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_ours(frame.f_code.co_filename):
        frame = frame.f_back
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"


def asker() -> str:
    """The module whose code called the function that asks this.

    What TensorFlow puts between them, where it converts functions, is passed over.
    """
    frame = sys._getframe(2)
    while frame.f_back is not None and _module_of(frame).startswith("tensorflow."):
        frame = frame.f_back
    return _module_of(frame)


def _module_of(frame: FrameType) -> str:
    name: str = frame.f_globals.get("__name__") or ""
    return name


def _is_ours(path: str) -> bool:
    return path.startswith(_PACKAGE) and not path.startswith(_DEMO)
