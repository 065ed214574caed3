"""Text tables, for plans and reports: how rows are laid out, and how numbers stand there."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

R = TypeVar("R")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns under a ruled header; empty without rows.

    Columns that are empty in every row are left out.
    """
    lines = [header, *rows]
    used = [i for i in range(len(header)) if any(row[i] for row in rows)]
    if not used:
        return ""
    widths = {i: max(len(line[i]) for line in lines) for i in used}
    text = ["  ".join(line[i].ljust(widths[i]) for i in used).rstrip() for line in lines]
    text.insert(1, "  ".join("-" * widths[i] for i in used))
    return "\n".join(text)


def laid_out(columns: Mapping[str, Callable[[R], str]], rows: Iterable[R]) -> str:
    """Rows as a table.

    Args:
        columns: the header of each → what a row has there.
        rows: the rows, in their order.
    """
    return table(list(columns), [[cell(row) for cell in columns.values()] for row in rows])


def number(value: float, digits: int = 4) -> str:
    """A number with that many digits; empty for NaN, which nobody measured."""
    return "" if math.isnan(value) else f"{value:.{digits}g}"


def with_aliases(name: str, aliases: Sequence[str]) -> str:
    """All names of what has several: ``head.weight = embedding.weight``."""
    return " = ".join([name, *aliases])


class Listing(Generic[R]):
    """Base of what is returned as rows and prints as a table, with remarks below.

    Args:
        rows: the rows, in their order.
    """

    columns: ClassVar[Mapping[str, Callable[[Any], str]]]
    """See :func:`laid_out`."""

    empty: str = ""
    """What to print if there are no rows."""

    def __init__(self, rows: Iterable[R]) -> None:
        self.rows = tuple(rows)

    def __getitem__(self, index: int) -> R:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[R]:
        return iter(self.rows)

    def table(self) -> str:
        """The rows, laid out."""
        return laid_out(self.columns, self.rows)

    def remarks(self) -> Iterable[str]:
        """The lines below the table; empty ones are left out."""
        return ()

    def __str__(self) -> str:
        return "\n".join(filter(None, [self.table(), *self.remarks()])) if self.rows else self.empty

    __repr__ = __str__  # what a notebook shows
