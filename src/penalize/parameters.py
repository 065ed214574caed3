"""The record of one parameter: what rules are resolved against. It holds no live object."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penalize.rules import Table


class Role(StrEnum):
    """What a parameter does."""

    KERNEL = "kernel"
    BIAS = "bias"
    NORM = "norm"
    EMBEDDING = "embedding"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Site:
    """One place where a parameter stands in a model. A tied parameter has several."""

    name: str
    """Path and name, components separated by dots, without wrapper prefixes."""

    enclosing: tuple[type, ...] = ()
    """Types of the modules that hold it, from the model down to its owner."""

    scopes: tuple[Table, ...] = ()
    """The scopes it was built in, outermost first."""

    declared: Table | None = None
    """What was declared on the parameter itself."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """What is known of one trainable array. Predicates of ``where`` receive it.

    A tied parameter is one record with several sites; its name is that of the first.
    """

    sites: tuple[Site, ...]
    role: Role
    shape: tuple[int, ...] | None
    """None for a lazy parameter that has not seen a batch."""

    trainable: bool = True
    outputs_axis: int | None = None
    """The axis that indexes outputs, where a single one does."""

    inputs_axis: int | None = None
    """The axis that indexes inputs, where a single one does."""

    note: str = ""
    """What a reader of the plan should know."""

    @property
    def name(self) -> str:
        return self.sites[0].name

    @property
    def aliases(self) -> tuple[str, ...]:
        return tuple(site.name for site in self.sites[1:])

    @property
    def ndim(self) -> int:
        """Number of axes; 0 for a lazy parameter."""
        return len(self.shape or ())

    @property
    def size(self) -> int:
        """Number of elements; 0 for a lazy parameter."""
        return 0 if self.shape is None else math.prod(self.shape)

    @property
    def layout(self) -> dict[str, int | None]:
        """The axes of the words ``"outputs"`` and ``"inputs"``."""
        return {"outputs": self.outputs_axis, "inputs": self.inputs_axis}
