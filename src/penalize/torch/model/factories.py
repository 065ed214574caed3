"""Models that are named on the command line, by what makes them: ``MODULE:FACTORY``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from torch import nn

from penalize.errors import ModelError
from penalize.imports import imported


def factory(name: str) -> Callable[..., Any]:
    """What ``MODULE:FACTORY`` names; the current folder is looked in, as by ``python -m``.

    Raises:
        ModelError: there is none.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ModelError(f"{name!r} is no MODULE:FACTORY", "write torch.nn:Linear, say")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found: Any = imported(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ModelError(f"{name!r} cannot be imported ({error})", "check the name") from None
    if not callable(found):
        raise ModelError(f"{name!r} is a {type(found).__name__}", "name what makes a model")
    return found  # type: ignore[no-any-return]


def made(name: str, *arguments: int, takes: str = "no arguments") -> nn.Module:
    """The model that ``MODULE:FACTORY`` makes of these arguments.

    Args:
        name: what :func:`factory` finds.
        arguments: what to call it with.
        takes: what it may take, in words.

    Raises:
        ModelError: there is none, it fails, or it makes something else.
    """
    make = factory(name)
    try:
        model = make(*arguments)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever stands in it
        raise ModelError(
            f"'{name}({', '.join(map(str, arguments))})' fails ({told(error)})",
            f"name what takes {takes}",
        ) from None
    if not isinstance(model, nn.Module):
        raise ModelError(f"{name!r} made a {type(model).__name__}", "it has to make an nn.Module")
    return model


def told(error: BaseException) -> str:
    """An exception in a line."""
    return f"{type(error).__name__}: {error}".strip().partition("\n")[0]
