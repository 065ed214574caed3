"""What a compacted model lost, as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from penalize.tables import Listing


@dataclass(frozen=True)
class Layer:
    """What a layer lost.

    Args:
        name: of its weight.
        before: its units.
        after: those that are left.
        kept: why how many of its dead units stay.
    """

    name: str
    before: int
    after: int
    kept: Mapping[str, int]


class Compacted(Listing[Layer]):
    """A smaller model, and what it lost: prints as a table, one row for a layer.

    ``.model`` is new, and shares nothing with the old one.
    """

    columns: ClassVar[Mapping[str, Callable[[Layer], str]]] = {
        "layer": lambda row: row.name,
        "units": lambda row: str(row.before),
        "left": lambda row: str(row.after),
        "kept though dead": lambda row: "; ".join(f"{n}: {why}" for why, n in row.kept.items()),
    }

    def __init__(
        self,
        rows: Sequence[Layer],
        model: Any,
        parameters: tuple[int, int],
        operations: tuple[int, int],
        indices: Mapping[tuple[str, int], Any],
    ) -> None:
        super().__init__(rows)
        self.model = model
        """The smaller model."""
        self.parameters = parameters
        """How many numbers the parameters are, before and after."""
        self.operations = operations
        """Floating-point operations on the example inputs, before and after."""
        self._indices = indices

    def indices(self, name: str, dimension: int = 0) -> Any:
        """Which of its old indices a parameter's dimension still has; None for all of them."""
        return self._indices.get((name, dimension))

    def remarks(self) -> list[str]:
        (p, q), (f, g) = self.parameters, self.operations
        return [
            f"{q:,} of {p:,} parameters ({q / max(p, 1):.1%}), "
            f"{g:,} of {f:,} floating-point operations ({g / max(f, 1):.1%})"
        ]


def why_not_smaller(kind: str, rows: Sequence[Layer], zero: int, small: int) -> str:
    """Why nothing went.

    Args:
        kind: the model's class.
        rows: its layers.
        zero: how many of its weights are 0.
        small: how many are below a thousandth of their parameter's largest, and not 0.
    """
    kept = sum(n for row in rows for n in row.kept.values())
    if kept:
        return f"all {kept} dead units of the {kind} stay: print the result for the reasons"
    return (
        f"the {kind} has no dead unit to cut: {zero:,} of its weights are 0, and "
        f'{small:,} are small but not 0; group lasso in mode="proximal" or mode="halfspace" makes '
        "whole units exactly 0"
    )
