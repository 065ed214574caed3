"""The table of regularizer cases. A new row buys every test in test_regularizers.py."""

from cases import anchored, constraints, differences, elementwise, groups, matrices, nonconvex
from cases.case import Case

CASES: list[Case] = [
    *elementwise.CASES,
    *nonconvex.CASES,
    *groups.CASES,
    *constraints.CASES,
    *matrices.CASES,
    *differences.CASES,
    *anchored.CASES,
]

__all__ = ["CASES", "Case"]
