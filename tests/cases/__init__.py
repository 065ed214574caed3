"""The table of regularizer cases. A new row buys every test in test_regularizers.py."""

from cases import anchored, constraints, differences, elementwise, groups, matrices, nonconvex
from cases.case import Case
from penalize import Sum

CASES: list[Case] = [
    *elementwise.CASES,
    *nonconvex.CASES,
    *groups.CASES,
    *constraints.CASES,
    *matrices.CASES,
    *differences.CASES,
    *anchored.CASES,
]


def _kind(case: Case) -> tuple[str, ...]:
    """The classes in it, and the kinds of groups."""
    r = case.regularizer
    terms = r.terms if isinstance(r, Sum) else (r,)
    groups = [type(getattr(term, "groups", getattr(term, "rows", None))).__name__ for term in terms]
    partition = ["partition"] if "((" in repr(r) else []
    return (*(type(term).__name__ for term in terms), *groups, *partition)


KINDS: list[Case] = list({_kind(case): case for case in reversed(CASES)}.values())[::-1]
"""One case of each kind: enough for what asks whether a framework can trace it."""

FEW: list[Case] = [
    case
    for n, case in enumerate(KINDS)
    if not {*_kind(case)} <= {part for other in KINDS[:n] for part in _kind(other)}
]
"""Some of these in which each class and each kind of groups comes once: for what takes long."""

__all__ = ["CASES", "FEW", "KINDS", "Case"]
