"""The state of an attachment as plain data, and whether two states agree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from penalize.errors import StateError
from penalize.torch.modes import Mode, Target

VERSION = 1


def state_of(mode: Mode, targets: Iterable[Target]) -> dict[str, Any]:
    """What is applied, and how: names, numbers and strings only."""
    return {
        "version": VERSION,
        "mode": mode.name,
        "clip": mode.clip,
        "penalties": {
            target.name: {
                "class_name": type(target.regularizer).__name__,
                "config": target.regularizer.get_config(),
            }
            for target in targets
        },
    }


def check_same(saved: object, here: Mapping[str, Any]) -> None:
    """Raise :class:`StateError`, with every difference, unless the two states agree."""
    if not (isinstance(saved, Mapping) and saved.keys() == here.keys()):
        raise StateError("it was not saved by an attachment")
    if saved["version"] != VERSION:
        raise StateError(f"its version is {saved['version']!r}, and {VERSION} is read here")
    if not isinstance(saved["penalties"], Mapping):
        raise StateError("its penalties are no mapping from name to regularizer")
    problems = [
        f"it has {key}={saved[key]!r}, and here it is {here[key]!r}"
        for key in ("mode", "clip")
        if saved[key] != here[key]
    ]
    problems += _differences(saved["penalties"], here["penalties"])
    if problems:
        raise StateError("; ".join(problems))


def _differences(saved: Mapping[Any, Any], here: Mapping[str, Any]) -> list[str]:
    problems = [f"{name!r} is penalized there only" for name in saved.keys() - here.keys()]
    problems += [f"{name!r} is penalized here only" for name in here.keys() - saved.keys()]
    problems += [
        f"{name!r} has {saved[name]!r} there and {here[name]!r} here"
        for name in saved.keys() & here.keys()
        if saved[name] != here[name]
    ]
    return sorted(problems)
