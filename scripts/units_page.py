"""The tables of docs/units.md, made from ``penalize.units``: ``make units`` writes them.

``python scripts/units_page.py``. A test holds the page to them; ``scripts/units.py`` measures again
what the tables say of packages that are not installed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from documents import table, with_part

from penalize.units.linear import LINEAR
from penalize.units.scikit import SCIKIT
from penalize.units.table import TABLE
from penalize.units.training import OPTIMIZERS, TERMS
from penalize.units.unit import Unit

PAGE = Path(__file__).parent.parent / "docs" / "units.md"


def merged(units: Sequence[Unit]) -> Iterator[tuple[list[str], Unit]]:
    """Rows that differ in nothing but their names, as one; each option stands with the name."""
    for _, group in groupby(units, lambda unit: replace(unit, name="")):
        rows = list(group)
        yield [row.title for row in rows], rows[0]


def titles(names: Sequence[str]) -> str:
    """The names of rows that are merged."""
    return ", ".join(f"`{name}`" for name in names)


def penalty(unit: Unit) -> str:
    """The formula, where there is one."""
    return f"`{unit.penalty}`" if not unit.why_not else "–"


def reach(unit: Unit) -> str:
    """Which parameters are penalized."""
    return unit.reach.says if not unit.why_not else ""


def beside(unit: Unit) -> str:
    """What else there is to know."""
    if unit.why_not:
        return unit.why_not[0].upper() + unit.why_not[1:]
    too = "" if unit.reach.exempt is None or unit.mode else "**The intercept, too.** "
    return (too + unit.note).strip()


Column = Callable[[Sequence[str], Unit], str]

LINEAR_COLUMNS: dict[str, Column] = {
    "measured at": lambda _, unit: unit.package,
    "setting": lambda names, _: titles(names),
    "in penalize": lambda _, unit: penalty(unit),
    "beside": lambda _, unit: unit.loss,
    "what else": lambda _, unit: beside(unit),
}

TRAINING_COLUMNS: dict[str, Column] = {
    "measured at": lambda _, unit: unit.package,
    "setting": lambda names, _: titles(names),
    "in penalize": lambda _, unit: penalty(unit),
    "of": lambda _, unit: reach(unit),
    "mode": lambda _, unit: unit.mode,
    "what else": lambda _, unit: beside(unit),
}


def laid_out(columns: dict[str, Column], units: Sequence[Unit]) -> str:
    """A table of rows, by columns."""
    rows = ([column(*row) for column in columns.values()] for row in merged(units))
    return table(list(columns), rows)


def taken_for(units: Sequence[Unit]) -> str:
    """What one would guess, where that was wrong."""
    wrong = [unit for unit in units if unit.taken_for]
    rows = ([titles(names), penalty(unit), unit.taken_for] for names, unit in merged(wrong))
    return table(["setting", "is", "and is often taken for"], rows)


def parts() -> dict[str, str]:
    """What stands between the marks of the page."""
    return {
        "estimators": laid_out(LINEAR_COLUMNS, [*SCIKIT, *LINEAR]),
        "optimizers": laid_out(TRAINING_COLUMNS, [*OPTIMIZERS, *TERMS]),
        "guesses": taken_for(TABLE),
    }


def main() -> None:
    """Write the page again."""
    text = PAGE.read_text("utf-8")
    for name, written in parts().items():
        text = with_part(text, name, written)
    PAGE.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
