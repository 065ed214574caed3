"""The public names of a package, loaded when they are first used (PEP 562).

They stand once, in the stub ``__init__.pyi`` beside the package, which type checkers and editors
read too: ``from penalize.errors import ConfigError as ConfigError``. A name that a module of the
package has as well is imported in ``__init__.py``: else it would be that module, once it is loaded.
"""

from __future__ import annotations

import ast
import sys
from functools import cache
from importlib import import_module
from typing import Any


@cache
def homes(package: str) -> dict[str, str]:
    """The names that the stub of a package imports, in its order → the modules they are from.

    Raises:
        ImportError: the package was copied without its stub, as programs that pack others may.
    """
    module = sys.modules[package]
    loader: Any = module.__spec__.loader if module.__spec__ else None
    path = f"{module.__path__[0]}/__init__.pyi"
    try:
        stub = ast.parse(loader.get_data(path))
    except OSError as error:
        raise ImportError(
            f"{path} is missing, which lists the names of {package}: {error}. Have it packed with "
            f"the modules, in PyInstaller by --collect-data {package}."
        ) from None
    return {
        alias.asname or alias.name: statement.module
        for statement in stub.body
        if isinstance(statement, ast.ImportFrom) and statement.module
        for alias in statement.names
    }


def attribute(package: str, name: str) -> Any:
    """An attribute that a package does not have yet, for its ``__getattr__``.

    Raises:
        AttributeError: the stub has no such name.
    """
    known = homes(package)
    if name == "__all__":
        value: Any = sorted(known)
    elif name in known:
        value = getattr(import_module(known[name]), name)
    else:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return vars(sys.modules[package]).setdefault(name, value)


def names(package: str) -> list[str]:
    """The names that a package has and those that it would load, for its ``__dir__``."""
    return sorted({*vars(sys.modules[package]), *homes(package), "__all__"})
