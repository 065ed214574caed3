"""The table of regularizer cases. A new row buys every test in test_regularizers.py."""

from cases import anchored, constraints, elementwise, groups, matrices
from cases.case import Case

CASES: list[Case] = [
    *elementwise.CASES,
    *groups.CASES,
    *matrices.CASES,
    *anchored.CASES,
    *constraints.CASES,
]

__all__ = ["CASES", "Case"]
