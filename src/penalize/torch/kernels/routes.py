"""What ``attachment.explain()`` tells: the path that each penalty took in the last step."""

from __future__ import annotations

from dataclasses import dataclass

from penalize.regularizers.base import Regularizer
from penalize.tables import table


@dataclass(frozen=True, slots=True)
class Route:
    """One penalized parameter."""

    name: str
    regularizer: Regularizer
    path: str
    """See :mod:`penalize.torch.kernels`; empty before the first step, and while it is frozen."""

    why: str
    """Why it is the plain path; else empty."""


class Routes(tuple[Route, ...]):
    """One row per penalized parameter; prints as a table."""

    __slots__ = ()

    def __str__(self) -> str:
        rows = [(r.name, repr(r.regularizer), r.path or "not stepped yet", r.why) for r in self]
        return table(("parameter", "regularizer", "path", "why"), rows)

    __repr__ = __str__
