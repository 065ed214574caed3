"""The plan: rules resolved against a model. One row per parameter, nothing counted twice."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from penalize.backends import Array
from penalize.parameters import Parameter, Role
from penalize.regularizers.base import Regularizer
from penalize.rules import Decision
from penalize.tables import laid_out, with_aliases


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

    rule: str = field(default="", repr=False, compare=False)
    """The declaration that won, without its place: ``"rule kernels"``."""

    together: tuple[str, ...] = ()
    """The groups that span parameters which it is in: these are penalized under their names."""


def row_of(
    parameter: Parameter,
    decision: Decision,
    shape: tuple[int, ...] | None,
    trainable: bool,
    together: tuple[str, ...] = (),
) -> Row:
    """The row for a parameter as it is now. A frozen one is skipped: its regularizer is None."""
    notes = [f"in {' and '.join(map(repr, together))}"] if together else []
    notes += [parameter.note] if parameter.note else []
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
        decision.rule or decision.declared_at,
        together if trainable else (),
    )


class PenalizedNow(NamedTuple):
    """One penalized parameter as it is now."""

    name: str
    value: Array
    regularizer: Regularizer
    """The regularizer with its strength at this step, and axes for the words of its groups."""

    penalty: float
    """Ω(w)."""


class Plan(ABC):
    """What every framework's plan shows. Immutable; each framework adds how it acts."""

    @property
    @abstractmethod
    def rows(self) -> tuple[Row, ...]:
        """One row per parameter, in the model's order; the rows tell what is frozen now."""

    @property
    def together(self) -> tuple[Row, ...]:
        """One row for each group of units that spans parameters; their shapes are units × size."""
        return ()

    @abstractmethod
    def penalized_now(self, params: Any = None, *, at: Any = None) -> list[PenalizedNow]:
        """What is penalized, with the values that it has now.

        Args:
            params: the parameters, for a plan that does not reach them by itself.
            at: the step of training, where a strength follows a schedule and the plan counts none.
        """

    def __repr__(self) -> str:
        rows = self.rows
        penalized = sum(_is_penalized(row) for row in rows)
        return f"<{type(self).__name__}: {penalized} of {len(rows)} parameters penalized>"

    def __str__(self) -> str:
        return describe(self.rows, {}, self.together)


class LivePlan(Plan):
    """A plan that reaches its parameters by itself, and so can show their penalties."""

    def breakdown(self) -> dict[str, float]:
        """The penalty of each penalized parameter by name, for logging. Waits for the device."""
        return {each.name: each.penalty for each in self.penalized_now()}

    def __str__(self) -> str:
        return describe(self.rows, self.breakdown(), self.together)


def describe(rows: Sequence[Row], penalties: dict[str, float], together: Sequence[Row] = ()) -> str:
    """The plan as a text table, with the penalties as they are now; groups in one of their own."""
    columns: dict[str, Callable[[Row], str]] = {
        "parameter": lambda row: with_aliases(row.name, row.aliases),
        "role": lambda row: row.role.value,
        "shape": lambda row: _in_words(row.shape),
        "regularizer": lambda row: "" if row.regularizer is None else repr(row.regularizer),
        "penalty now": lambda row: f"{penalties[row.name]:.4g}" if row.name in penalties else "",
        "declared at": lambda row: row.declared_at,
        "note": lambda row: row.note,
    }
    penalized = sum(_is_penalized(row) for row in rows)
    total = f", penalty {sum(penalties.values()):.4g}" if penalties else ""
    count = f"{penalized} of {len(rows)} parameters penalized{total}"
    idle = ", ".join(dict.fromkeys(rule for row in rows for rule in row.idle))
    said = f"{idle}: no parameter has such a role" if idle else ""
    of_groups = {"together": lambda row: repr(row.name), "units × size": columns["shape"]}
    of_groups |= {n: of for n, of in columns.items() if n not in ("parameter", "role", "shape")}
    groups = f"\n{laid_out(of_groups, together)}" if together else ""
    return "\n".join(filter(None, [laid_out(columns, rows), count, said, groups]))


def _is_penalized(row: Row) -> bool:
    return row.regularizer is not None or bool(row.together)


def _in_words(shape: tuple[int, ...] | None) -> str:
    return "lazy" if shape is None else "×".join(map(str, shape)) or "scalar"
