"""What an audit found: the factor with which each declared penalty really enters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from penalize.errors import AuditError
from penalize.tables import table


@dataclass(frozen=True, slots=True)
class Measured:
    """One declared penalty."""

    name: str
    """What it is declared on."""

    factor: float
    """How often it enters: 0 never, 1 once, 2 twice, 0.01 strength multiplied again; NaN where no
    single number says it, and the note does.
    """

    note: str = ""
    """Why there is no factor, or what else is wrong."""

    tolerance: float = 1e-6
    """How far the factor may be from a whole number by rounding."""

    @property
    def ok(self) -> bool:
        """Whether it enters exactly once, and nothing else is wrong with it."""
        return not self.note and abs(self.factor - 1) <= self.tolerance

    @property
    def is_missing(self) -> bool:
        """Whether it never enters, and nothing else is wrong with it."""
        return not self.note and self.factor == 0

    @property
    def verdict(self) -> str:
        """The factor, and what is wrong, in words."""
        words = [_in_words(self.factor, self.tolerance), self.note]
        return "; ".join(filter(None, words))


def _in_words(factor: float, tolerance: float) -> str:
    if math.isnan(factor):
        return ""
    if factor == 0:
        return "never applied"
    if abs(factor - 1) <= tolerance:
        return "applied once"
    if factor < 0:
        return "subtracted: the penalty is rewarded"
    if math.isfinite(factor) and factor > 1 and abs(factor - round(factor)) <= tolerance * factor:
        return f"applied {round(factor)} times"
    return f"strength multiplied again, by {factor:.6g}"


class Report:
    """What was measured, one row per declared penalty. Prints as a table, what is wrong first."""

    def __init__(self, rows: Sequence[Measured]) -> None:
        self.rows = tuple(rows)

    @property
    def wrong(self) -> tuple[Measured, ...]:
        """The rows of penalties that do not enter exactly once."""
        return tuple(row for row in self.rows if not row.ok)

    @property
    def ok(self) -> bool:
        """Whether every declared penalty enters exactly once."""
        return not self.wrong

    def check(self) -> None:
        """Raise :class:`~penalize.errors.AuditError`, with the table, unless all is well."""
        if not self.ok:
            raise AuditError(str(self))

    def __getitem__(self, index: int) -> Measured:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Measured]:
        return iter(self.rows)

    def __str__(self) -> str:
        if not self.rows:
            return "no penalty is declared"
        rows = sorted(self.rows, key=lambda row: row.ok)
        cells = [
            (row.name, "" if math.isnan(row.factor) else f"{row.factor:.6g}", row.verdict)
            for row in rows
        ]
        text = table(("penalty", "factor", "verdict"), cells)
        once = len(self.rows) - len(self.wrong)
        return f"{text}\n{once} of {len(self.rows)} applied exactly once"

    __repr__ = __str__  # what a notebook shows
