"""The names of the classes of regularizers in configurations, and the way back.

A class of penalize goes by its bare name, which no other class may take. Any other goes by its full
name, ``package.module:Class``, as two modules may each have a class of one name. Configurations of
earlier days have the bare name of any class, and load where just one class has it.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import Any

from penalize import lazy

_OURS = __name__.partition(".")[0]


def is_ours(cls: type) -> bool:
    """Whether a class is one of penalize."""
    return cls.__module__.partition(".")[0] == _OURS


def is_taken(name: str) -> bool:
    """Whether a class of penalize goes by this name, loaded or not."""
    return name in lazy.homes(__package__)


@cache
def define_ours() -> None:
    """Have the classes of penalize defined, which else are when they are first used."""
    for module in lazy.homes(__package__).values():
        import_module(module)


def config_name(cls: type) -> str:
    """The name of a class in a configuration."""
    return cls.__name__ if is_ours(cls) else _full_name(cls)


def _full_name(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def classes_below(base: type[Any]) -> list[type[Any]]:
    """The classes alive that derive from one, directly or not, each once."""
    return list(dict.fromkeys(_walk(base)))


def _walk(base: type[Any]) -> Iterator[type[Any]]:
    for cls in base.__subclasses__():
        yield cls
        yield from _walk(cls)


def classes_called(base: type[Any], name: Any) -> list[type[Any]]:
    """The classes below a base that the name in a configuration may stand for.

    Nothing is imported to find them but what is ours: a file must not decide which code runs.
    """
    define_ours()
    if len(_called(base, name)) != 1:
        gc.collect()  # classes that nobody can reach any more live on until then
    return _called(base, name)


def _called(base: type[Any], name: Any) -> list[type[Any]]:
    known = classes_below(base)
    found = [cls for cls in known if config_name(cls) == name]
    found = found or [cls for cls in known if cls.__name__ == name]
    current = {_full_name(cls): cls for cls in found if _is_current(cls)}
    return [cls for cls in found if current.get(_full_name(cls), cls) is cls]


def _is_current(cls: type) -> bool:
    """Whether the full name of a class leads to it: of one that was defined again, it does not."""
    found: Any = sys.modules.get(cls.__module__)
    for part in cls.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is cls


def why_not_one(base: type[Any], name: Any, found: list[type[Any]]) -> str:
    """Why a name does not stand for one class, and what to do, as a clause.

    Args:
        base, name: see :func:`classes_called`.
        found: what it gave.
    """
    names = sorted({_full_name(cls) for cls in found})
    if len(names) > 1:
        return (
            f"the class_name {name!r} is that of {' and of '.join(names)}; write which of them is "
            "meant as class_name"
        )
    if names:
        return f"{len(found)} classes are {names[0]}; define it once, at the top of its module"
    module, colon, rest = name.partition(":") if isinstance(name, str) else ("", "", "")
    if not colon:
        known = ", ".join(sorted({config_name(cls) for cls in classes_below(base)}))
        return (
            f"no class is called {name!r} here; import the module that defines it first; the "
            f"classes are {known}"
        )
    importable = module != "__main__" and "<locals>" not in rest
    how = f"import {module} first" if importable else "define it first, as the saving program did"
    last = rest.rpartition(".")[-1]
    alike = sorted({config_name(cls) for cls in classes_below(base) if cls.__name__ == last})
    instead = f", or write {' or '.join(alike)} as class_name if that is meant" if alike else ""
    return f"the class {name} is not known here; {how}{instead}"
