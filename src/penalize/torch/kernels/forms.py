"""What one generated kernel is for: a regularizer without its strengths, and what it is to do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from penalize.regularizers.base import Regularizer
from penalize.regularizers.elementwise import L1, L2
from penalize.regularizers.groups import ByNorm
from penalize.regularizers.sums import Sum
from penalize.steps import Taken
from penalize.torch.kernels.symbols import Extent, NotTraceableError, Symbol, Tracer


@dataclass(frozen=True)
class Form:
    """A regularizer without its strengths: what one kernel is for."""

    terms: tuple[Regularizer, ...]
    """On rows, each at strength one, and without sizes of groups: they are in the numbers."""

    @property
    def count(self) -> int:
        """How many strengths it has."""
        return sum(len(term.strengths) for term in self.terms)

    def build(self, numbers: Sequence[Any]) -> Regularizer:
        """The regularizer with these strengths, which may be symbols."""
        left = list(numbers)
        terms = [t._with(**{name: left.pop(0) for name in t.strengths}) for t in self.terms]
        return Sum(tuple(terms)) if len(terms) > 1 else terms[0]


def form_of(regularizer: Regularizer, length: int) -> tuple[Form, list[float]]:
    """The form of a regularizer on rows of a length, and its numbers."""
    l1, l2, rest = regularizer.split()
    simple: list[Regularizer] = [L1(l1)] if l1 or not (l2 or rest) else []
    terms, numbers = [*simple, *([L2(l2)] if l2 else []), *rest], []
    units = []
    for term in terms:
        sized = isinstance(term, ByNorm) and term.size_weighted
        for name in term.strengths:
            root = math.sqrt(length) if sized and name == "strength" else 1.0
            numbers.append(float(getattr(term, name)) * root)
        unit = term.unit()
        units.append(unit._with(size_weighted=False) if sized else unit)
    return Form(tuple(units)), numbers


def prox_of(taken: Taken | None) -> str:
    """What kind of step a kernel takes: empty for a gradient; "one" for a step per weight, "each"
    and "root" for one per element.
    """
    if taken is None:
        return ""
    return "one" if taken.second is None else "root" if taken.is_squared else "each"


FACTORS = ("factor", "scale", "offset")
"""The numbers of a gradient or a proximal step, beside strengths."""


class Traced(NamedTuple):
    """What a kernel computes."""

    out: Symbol
    """What it stores for each element."""

    value: Symbol | None
    """The part of Ω(w) that it has seen, if it is asked."""


class Outline(NamedTuple):
    """What a kernel for the CPU reads, computes and stores."""

    arrays: Mapping[str, str]
    """What it is given for each weight, and LLVM's name of the type in memory."""

    numbers: Sequence[str]
    """What it reads for each weight, beside strengths."""

    reads: Mapping[str, str]
    """By the name of a symbol the array in which it is; ``"array.2"`` is bit 2 of it."""

    outs: Mapping[str, Symbol | tuple[Symbol, ...]]
    """What it stores, by the array where it does; conditions are bits."""

    sums: Sequence[Symbol]
    """What it adds up over each block."""

    again: Sequence[Symbol] = ()
    """Sums over rows that are in the array ``"sums"``, one after the other for all rows."""

    keeps: bool = False
    """Whether it puts them there."""


def traced(form: Form, prox: str, xp: Tracer, *, with_value: bool = False) -> Traced:
    """The formulas of a kernel, written down by a tracer.

    Raises:
        NotTraceableError, TypeError, AttributeError: they have no place in a kernel.
    """
    w, beside = xp.symbol("w", Extent.TILE), xp.symbol("beside", Extent.TILE)
    regularizer = form.build([xp.symbol(f"s{i}") for i in range(form.count)])
    factor, scale, offset = (xp.symbol(name) for name in ("factor", "scale", "offset"))
    backend: Any = xp
    value = regularizer._value(w, backend) if with_value else None
    if not prox:
        out = beside + factor * regularizer._gradient(w, backend)
    elif prox == "one":
        out = regularizer._prox(w, factor, backend)
    else:
        taken = Taken(factor, beside, scale, offset, is_squared=prox == "root")
        out = regularizer._prox_taken(w, taken.step(backend), backend)
    if not isinstance(out, Symbol):
        raise NotTraceableError("it gives nothing that depends on the weight")
    return Traced(out, value)
