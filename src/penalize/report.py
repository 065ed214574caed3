"""What an audit found: the factor with which each declared penalty really enters, and what
regularizes beside them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from penalize.errors import AuditError
from penalize.tables import Listing, number, table


class Level(StrEnum):
    """How bad it is."""

    WRONG = "wrong"
    LOOK = "look"
    """Often meant otherwise, and sometimes meant so."""

    FACT = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """One declared penalty."""

    name: str
    """What the penalty is declared on."""

    factor: float
    """How often it enters: 0 never, 1 once, 2 twice, 0.01 strength multiplied again; NaN where no
    single number says it, and the note does.
    """

    note: str = ""
    """Why there is no factor, or what else is wrong."""

    tolerance: float = 1e-6
    """How far the factor may be from a whole number by rounding."""

    what: str = ""
    """The penalty in words, where the name alone does not say it."""

    @property
    def level(self) -> Level:
        """Wrong unless it is applied once."""
        return Level.FACT if self.ok else Level.WRONG

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


@dataclass(frozen=True, slots=True)
class Found:
    """What acts on one parameter and was not declared, or keeps what should act from it."""

    name: str
    level: Level
    verdict: str
    """What is wrong with it, or worth to be known, in words."""

    what: str = ""
    """The regularization; empty where the finding is of none."""

    factor: float = math.nan
    """How often it enters; NaN where that was not measured."""

    @property
    def ok(self) -> bool:
        """Whether it is no fault."""
        return self.level is not Level.WRONG


Finding = Measured | Found


class Report(Listing[Finding]):
    """What was measured and found. Prints as a table, what is wrong first.

    There is one row per declared penalty, and, where that was asked for, one per parameter and
    whatever else regularizes it.

    Args:
        rows: what was found.
        empty: what to print if nothing was.
    """

    def __init__(self, rows: Sequence[Finding], empty: str = "no penalty is declared") -> None:
        super().__init__(rows)
        self.empty = empty

    @property
    def declared(self) -> tuple[Measured, ...]:
        """The rows of declared penalties."""
        return tuple(row for row in self.rows if isinstance(row, Measured))

    @property
    def wrong(self) -> tuple[Finding, ...]:
        """The rows of declared penalties that do not enter exactly once, and of other faults."""
        return tuple(row for row in self.rows if not row.ok)

    @property
    def ok(self) -> bool:
        """Whether every declared penalty enters exactly once, and nothing else is wrong."""
        return not self.wrong

    def check(self) -> None:
        """Raise :class:`~penalize.errors.AuditError`, with the table, unless all is well."""
        if not self.ok:
            raise AuditError(str(self), not all(row.ok for row in self.declared))

    def table(self) -> str:
        """The rows, what is wrong first; parameters of which the same is said share one."""
        names: dict[tuple[str, ...], list[str]] = {}
        mixed = len(self.declared) < len(self.rows)
        for row in sorted(self.rows, key=lambda row: list(Level).index(row.level)):
            level = row.level if mixed else ""
            alone = row.name if isinstance(row, Measured) else ""
            said = (level, alone, row.what, number(row.factor, 6), row.verdict)
            names.setdefault(said, []).append(row.name)
        header = ("", "parameter" if mixed else "penalty", "regularization", "factor", "verdict")
        return table(
            header, [(said[0], _together(them), *said[2:]) for said, them in names.items()]
        )

    def remarks(self) -> Iterator[str]:
        """How many declared penalties enter once, and how many parameters have a fault."""
        declared = self.declared
        if declared:
            once = sum(row.ok for row in declared)
            yield f"{once} of {len(declared)} applied exactly once"
        if len(declared) < len(self.rows):
            wrong = len({row.name for row in self.wrong})
            has = "parameter has" if wrong == 1 else "parameters have"
            yield f"{wrong} {has} a fault" if wrong else "nothing is wrong"


def _together(names: Sequence[str]) -> str:
    """``a, b and 9 more``: up to three, and as many as fit."""
    fitting = [n for n in range(1, 4) if len(", ".join(names[:n])) <= 60] or [1]
    shown = names[: fitting[-1]]
    rest = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return ", ".join(shown) + rest
