"""Where a regularizer stands: what a plan knows of one parameter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from penalize.backends import Array


@dataclass(frozen=True)
class Place:
    """One parameter, as a regularizer is resolved for it."""

    names: tuple[str, ...] = ()
    """The parameter's name, and its aliases if it is tied."""

    shape: tuple[int, ...] | None = None
    """The parameter's shape; None where it is not known yet."""

    axes: Mapping[str, int | None] = field(default_factory=dict)
    """The axis of ``"outputs"`` and ``"inputs"`` in the framework's layout, where there is one."""

    start: Callable[[], Array] | None = None
    """Reads the value that it has now; None where there is none."""

    def __str__(self) -> str:
        """The parameter's name, for messages."""
        return repr(self.names[0]) if self.names else ""
