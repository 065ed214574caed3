"""What ``attachment.explain()`` tells: the path that each penalty took in the last step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from penalize.regularizers.base import Regularizer
from penalize.tables import laid_out


@dataclass(frozen=True, slots=True)
class Route:
    """One penalized parameter."""

    name: str
    regularizer: Regularizer
    path: str
    """See :mod:`penalize.torch.kernels`; empty before the first step, and while it is frozen."""

    why: str
    """Why it is no faster path; empty where there is nothing to say."""

    left: float | None = None
    """The share of its zeros that were left lately; None where the mode keeps no average."""


class Routes(tuple[Route, ...]):
    """One row per penalized parameter; prints as a table."""

    __slots__ = ()

    def __str__(self) -> str:
        columns: dict[str, Callable[[Route], str]] = {
            "parameter": lambda row: row.name,
            "regularizer": lambda row: repr(row.regularizer),
            "path": lambda row: row.path or "not stepped yet",
            "why": lambda row: row.why,
        }
        if any(row.left is not None for row in self):
            columns["zeros left"] = lambda row: "" if row.left is None else f"{row.left:.1%}"
        return laid_out(columns, self)

    __repr__ = __str__
