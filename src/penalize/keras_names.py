"""The names by which Keras saves and loads the regularizers of penalize.

Keras refuses to load a class that was not registered, and penalize loads neither Keras nor its own
classes before they are needed. So each class announces itself when it is defined, and the hook that
``penalize/__init__.py`` puts among the importers registers them all when Keras is imported,
whichever of the two comes first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from importlib import import_module
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
    keras = sys.modules.get("keras")
    saving = _contents(keras).get("saving") if _is_lazy(keras) else getattr(keras, "saving", None)
    register = getattr(saving, "register_keras_serializable", None)
    if register is not None:
        for cls in classes:
            register(package="penalize")(cls)


def register_with_loaded(keras: ModuleType, define: Callable[[], object]) -> None:
    """Register with the Keras that is in ``sys.modules``: now, or when it is loaded.

    Args:
        keras: the module, which may be one of ``importlib.util.LazyLoader``.
        define: see :func:`register_all`.
    """
    if _is_lazy(keras):
        _follow(_contents(keras)["__spec__"], define)
    else:
        import_module("keras")  # waits, where another thread has begun with it
        register_all(define)


def _is_lazy(module: object) -> bool:
    """Whether a module is one of ``importlib.util.LazyLoader`` that is not loaded yet."""
    return type(module).__name__ == "_LazyModule"


def _contents(module: object) -> dict[str, Any]:
    """What is in a lazy module, which would load if it were asked in the ordinary way."""
    found: dict[str, Any] = object.__getattribute__(module, "__dict__")
    return found


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
            _follow(spec, define)
            return spec
    return None


def _follow(spec: ModuleSpec, define: Callable[[], object]) -> None:
    if hasattr(spec.loader, "exec_module"):
        spec.loader = _AndRegister(spec.loader, define)  # type: ignore[assignment]


class _AndRegister:
    """A loader around the one that was found, which is left as it is: others may share it.

    It steps aside when it has to load: the module knows the loader that it would have known.
    """

    def __init__(self, loader: Any, define: Callable[[], object]) -> None:
        self._loader = loader
        self._define = define

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        register_all(self._define)

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_loader"), name)
