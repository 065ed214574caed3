"""The names by which Keras saves and loads the regularizers of penalize.

Keras refuses to load a class that was not registered, and penalize loads neither Keras nor its own
classes before they are needed. So each class announces itself when it is defined, and the hook that
``penalize/__init__.py`` puts among the importers registers them all when Keras is imported,
whichever of the two comes first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_announced: list[type] = []


def announce(cls: type) -> None:
    """Register a class with Keras: now, or as soon as Keras is imported."""
    _announced.append(cls)
    _register([cls])


def _register(classes: Iterable[type]) -> None:
    # While Keras is half imported it has no such attribute yet; the hook comes when it is done.
    saving = getattr(sys.modules.get("keras"), "saving", None)
    register = getattr(saving, "register_keras_serializable", None)
    if register is not None:
        for cls in classes:
            register(package="penalize")(cls)


def register_all(define: Callable[[], object]) -> None:
    """Register every class with Keras, which is imported.

    Args:
        define: imports the modules that define the classes, if they are not yet.
    """
    define()
    _register(_announced)


def find(
    hook: object,
    define: Callable[[], object],
    name: str,
    path: Any = None,
    target: ModuleType | None = None,
) -> ModuleSpec | None:
    """Where Keras is, as the other importers say; :func:`register_all` comes after its import.

    Args:
        hook: the importer that asks, which is passed over.
        define: see :func:`register_all`.
        name, path, target: see ``importlib.abc.MetaPathFinder.find_spec``.
    """
    for finder in list(sys.meta_path):
        ask = None if finder is hook else getattr(finder, "find_spec", None)
        spec: ModuleSpec | None = None if ask is None else ask(name, path, target)
        if spec is not None:
            _follow(spec.loader, define)
            return spec
    return None


def _follow(loader: Any, define: Callable[[], object]) -> None:
    """Have a loader, which is made for this one import, come back when it has run the module."""
    run = getattr(loader, "exec_module", None)
    if run is None:
        return

    def exec_module(module: ModuleType) -> None:
        run(module)
        register_all(define)

    loader.exec_module = exec_module
