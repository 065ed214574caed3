"""``scope=`` of a collection: an exact boundary, where TensorFlow has a regular expression."""

from __future__ import annotations

import re
from collections.abc import Callable

from penalize.errors import ScopeError, VariableError

# Letters that no name of TensorFlow has, so that whoever writes them means a regular expression.
_MEANT_AS_PATTERN = re.compile(r"[*+?^$|()\[\]{}\\]")


def scope_filter(scope: str | None) -> Callable[[str | None], bool]:
    """Which names a scope holds: itself and what lies below. None holds all; ``""`` all names."""
    if scope is None:
        return lambda _: True
    if not isinstance(scope, str):
        raise ScopeError(
            f"the scope of a collection was given as a {type(scope).__name__}",
            "the name of a scope, such as get_variable_scope().name",
        )
    if _MEANT_AS_PATTERN.search(scope):
        raise VariableError(
            f"the scope {scope!r} is a regular expression, which is not supported",
            "the name of a scope, such as 'generator', which holds all that lies below it",
        )
    path = scope.removesuffix(":0").rstrip("/")
    return lambda name: name is not None and (not path or f"{name}/".startswith(f"{path}/"))
