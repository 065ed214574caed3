"""What training goes by, as text: so that a results file of something else is known."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np


def name_of(function: Any) -> str:
    """The name of a function, or of an object that can be called; what a partial one is given."""
    if isinstance(function, partial):
        given = [*map(repr, function.args), *(f"{k}={v!r}" for k, v in function.keywords.items())]
        return f"{name_of(function.func)}({', '.join(given)})"
    if hasattr(function, "__qualname__"):
        return f"{function.__module__}.{function.__qualname__}"
    # An object of PyTorch says its settings; others may say their address.
    is_module = any(kind.__module__.startswith("torch.nn") for kind in type(function).__mro__)
    return repr(function) if is_module else type(function).__qualname__


def digest_of(arrays: Iterable[Any]) -> str:
    """A text that tells whether arrays are the same."""
    hashed = hashlib.sha256()
    for array in map(np.asarray, arrays):
        hashed.update(f"{array.dtype} {array.shape} ".encode() + array.tobytes())
    return hashed.hexdigest()
