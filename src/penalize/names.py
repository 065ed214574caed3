"""Names and patterns: strings in, strings out.

A name is a path of components. Both ``.`` and ``/`` separate them. In a pattern ``*`` stands for
one component or a part of it, and ``**`` for any number of components.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


def components(pattern: str) -> list[str]:
    """The components of a name or pattern."""
    return pattern.replace("/", ".").split(".")


def ended(name: str) -> str:
    """The name as :func:`compile_pattern` expects it: every component ends with a dot."""
    return name.replace("/", ".") + "."


def unique(names: Iterable[str]) -> list[str]:
    """The names, with a number behind each that is taken already: ``w``, ``w_1``, ``w_2``."""
    taken: dict[str, None] = {}
    for name in names:
        free, number = name, 0
        while free in taken:
            number += 1
            free = f"{name}_{number}"
        taken[free] = None
    return list(taken)


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A regular expression that matches names, ended, from their start by whole components.

    ``match`` accepts what lies below the pattern too, ``fullmatch`` only what it names itself.
    """
    parts = []
    for component in components(pattern):
        if component == "**":
            parts.append(r"(?:[^.]+\.)*")
        else:
            parts.append(re.escape(component).replace(r"\*", "[^.]*") + r"\.")
    return re.compile("".join(parts))


def nearest(pattern: str, names: Iterable[str], count: int = 3) -> list[str]:
    """The names of parameters, and of modules above them, that look most like the pattern."""
    known: dict[str, None] = {}
    for name in names:
        parts = components(name)
        for end in range(1, len(parts) + 1):
            known[".".join(parts[:end])] = None
    wanted = ".".join(components(pattern))
    found = difflib.get_close_matches(wanted, known, n=count, cutoff=0.5)
    # A typo in front of the right ending, or a component without its path.
    by_end = [name for name in known if name.endswith("." + wanted)]
    return list(dict.fromkeys([*by_end[:count], *found]))[:count]
