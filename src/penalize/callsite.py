"""Where the user's code called us: ``train.py:14``, for plans and messages."""

from __future__ import annotations

import os
import sys

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_DEMO = os.path.join(_PACKAGE, "demo") + os.sep  # a user like any other


def callsite() -> str:
    """File name and line of the nearest caller outside this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_ours(frame.f_code.co_filename):
        frame = frame.f_back
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"


def _is_ours(path: str) -> bool:
    return path.startswith(_PACKAGE) and not path.startswith(_DEMO)
