"""The plan: rules resolved against a model. One row per parameter, nothing counted twice."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from penalize.parameters import Parameter, Role
from penalize.regularizers.base import Regularizer
from penalize.rules import Decision
from penalize.tables import table


@dataclass(frozen=True, slots=True)
class Row:
    """What the plan says of one parameter."""

    name: str
    aliases: tuple[str, ...]
    role: Role
    shape: tuple[int, ...] | None
    """None for a lazy parameter that has not seen a batch."""

    regularizer: Regularizer | None
    """None: not penalized."""

    declared_at: str
    """The declaration that won; empty where nothing was declared."""

    note: str
    """Frozen, overridden declarations, what an effective weight is made of."""

    idle: tuple[str, ...] = field(default=(), repr=False, compare=False)
    """The plan's rules by role that none of its parameters is matched by."""


def row_of(
    parameter: Parameter, decision: Decision, shape: tuple[int, ...] | None, trainable: bool
) -> Row:
    """The row for a parameter as it is now. A frozen one is skipped: its regularizer is None."""
    notes = [parameter.note] if parameter.note else []
    regularizer = decision.regularizer
    if not trainable:
        would = f" ({regularizer!r} when trainable)" if regularizer is not None else ""
        notes.append(f"skipped: frozen{would}")
        regularizer = None
    if decision.overrode:
        notes.append(f"overrides {', '.join(decision.overrode)}")
    if decision.passed_over and not decision.declared_at:
        notes.append(f"{decision.passed_over} acts on kernels only")
    return Row(
        parameter.name,
        parameter.aliases,
        parameter.role,
        shape,
        regularizer,
        decision.declared_at,
        "; ".join(notes),
        decision.idle,
    )


class Plan(ABC):
    """What every framework's plan shows. Immutable; each framework adds how it acts."""

    @property
    @abstractmethod
    def rows(self) -> tuple[Row, ...]:
        """One row per parameter, in the model's order; the rows tell what is frozen now."""

    def __repr__(self) -> str:
        rows = self.rows
        penalized = sum(row.regularizer is not None for row in rows)
        return f"<{type(self).__name__}: {penalized} of {len(rows)} parameters penalized>"

    def __str__(self) -> str:
        return describe(self.rows, {})


class LivePlan(Plan):
    """A plan that reaches its parameters by itself, and so can show their penalties."""

    @abstractmethod
    def breakdown(self) -> dict[str, float]:
        """The penalty of each penalized parameter, by name."""

    def __str__(self) -> str:
        return describe(self.rows, self.breakdown())


def describe(rows: Sequence[Row], penalties: dict[str, float]) -> str:
    """The plan as a text table, with the penalties as they are now."""
    header = ("parameter", "role", "shape", "regularizer", "penalty now", "declared at", "note")
    text = table(header, [_cells(row, penalties) for row in rows])
    penalized = sum(row.regularizer is not None for row in rows)
    total = f", penalty {sum(penalties.values()):.4g}" if penalties else ""
    idle = dict.fromkeys(rule for row in rows for rule in row.idle)
    said = f"\n{', '.join(idle)}: no parameter has such a role" if idle else ""
    return f"{text}\n{penalized} of {len(rows)} parameters penalized{total}{said}"


def _cells(row: Row, penalties: dict[str, float]) -> tuple[str, ...]:
    return (
        " = ".join([row.name, *row.aliases]),
        row.role.value,
        "lazy" if row.shape is None else "×".join(map(str, row.shape)) or "scalar",
        "" if row.regularizer is None else repr(row.regularizer),
        f"{penalties[row.name]:.4g}" if row.name in penalties else "",
        row.declared_at,
        row.note,
    )
