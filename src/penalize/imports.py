"""Modules that users name: imported, with a sentence for whatever happens there."""

from __future__ import annotations

import importlib
from types import ModuleType


def imported(name: str) -> ModuleType:
    """The module of a full name.

    Raises:
        ImportError: there is none, or it raises or exits while it is imported.
    """
    if "" in name.split("."):
        raise ImportError(f"{name!r} is no full name of a module")
    try:
        return importlib.import_module(name)
    except ImportError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever stands in it
        raise ImportError(f"importing {name} ends in {type(error).__name__}: {error}") from None
