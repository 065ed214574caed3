"""Declare penalties once; have them applied exactly once.

This package imports no framework. Its wings are ``penalize.torch``, ``penalize.jax``,
``penalize.tensorflow`` and ``penalize.keras``.
"""

import sys as _sys

__version__ = "0.2.0"


def _define_regularizers() -> None:
    from penalize.regularizers.registry import define_ours

    define_ours()


class _KerasHook:
    """An importer that finds nothing itself: it has our regularizers registered with Keras.

    A model that was saved with them must load whether or not they were used before, and whichever
    package is imported first. The hook stays, so that it also sees a Keras that is reloaded, or
    imported again after a failure: the names live in Keras. It costs an import one comparison.
    """

    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
        if name != "keras":
            return None
        from penalize.keras_names import find

        return find(self, _define_regularizers, name, path, target)


if not any(type(finder).__name__ == "_KerasHook" for finder in _sys.meta_path):
    _sys.meta_path.insert(0, _KerasHook())
if _sys.modules.get("keras") is not None:
    from penalize.keras_names import register_with_loaded as _register_with_loaded

    _register_with_loaded(_sys.modules["keras"], _define_regularizers)


# The public names stand in __init__.pyi, and are loaded when they are first used: so importing the
# package, as every wing and the command do, costs next to nothing.


def __getattr__(name: str) -> object:
    from penalize.lazy import attribute

    return attribute(__name__, name)


def __dir__() -> list[str]:
    from penalize.lazy import names

    return names(__name__)
