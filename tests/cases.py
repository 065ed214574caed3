"""The table of regularizer cases. A new row buys every test in test_regularizers.py.

Each case has a reference value, written again here with NumPy in float64 and nothing of ours. The
gradient is checked against finite differences of the reference, the proximal operator against a
numerical minimum of it, so a reference is all that a row needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from penalize import L1, L1L2, L2, GroupLasso, Orthogonal, Regularizer

Reference = Callable[[np.ndarray], float]


@dataclass(frozen=True)
class Case:
    regularizer: Regularizer
    reference: Reference
    shape: tuple[int, ...] = (3, 4)
    has_prox: bool = True
    kinks_at_zero: bool = True
    """Whether every kink of Ω is at an element that is 0, where 0 is a subgradient."""

    def __str__(self) -> str:
        return repr(self.regularizer)


def l1(w: np.ndarray) -> float:
    return float(np.abs(w).sum())


def l2(w: np.ndarray) -> float:
    return float((w**2).sum())


def grouped(*groups: list[tuple[int, ...]] | object, weighted: bool = True) -> Reference:
    """Σ √|g| ‖w_g‖ over lists of index tuples."""

    def value(w: np.ndarray) -> float:
        parts = [np.array([w[index] for index in group]) for group in groups]
        return float(sum((np.sqrt(len(p)) if weighted else 1.0) * np.linalg.norm(p) for p in parts))

    return value


def cosines(w: np.ndarray) -> float:
    """The mean |cosine| between different rows; a row of zeros has none."""
    pairs = [(a, b) for i, a in enumerate(w) for b in w[:i]]
    norm = np.linalg.norm
    each = [abs(a @ b) / (norm(a) * norm(b)) if a.any() and b.any() else 0.0 for a, b in pairs]
    return float(np.mean(each))


ROWS = [[(i, j) for j in range(4)] for i in range(3)]
COLUMNS = [[(i, j) for i in range(3)] for j in range(4)]
KERNELS = [[(i, j, k) for k in range(3)] for i in range(2) for j in range(2)]
UNEVEN = [
    [(0, 0), (2, 3)],
    [(0, 1), (0, 2), (0, 3), (1, 0)],
    [(1, 1)],
    [(1, 2), (1, 3), (2, 0), (2, 1), (2, 2)],
]
UNEVEN_FLAT = [[0, 11], [1, 2, 3, 4], [5], [6, 7, 8, 9, 10]]

CASES = [
    Case(L1(0.3), lambda w: 0.3 * l1(w)),
    Case(L2(0.7), lambda w: 0.7 * l2(w)),
    Case(L2(0.0), lambda w: 0.0),
    Case(L1L2(l1=0.3, l2=0.7), lambda w: 0.3 * l1(w) + 0.7 * l2(w)),
    Case(L1L2(l2=0.7), lambda w: 0.7 * l2(w)),
    Case(GroupLasso(0.2, groups=0), lambda w: 0.2 * grouped(*ROWS)(w)),
    Case(GroupLasso(0.2, groups=-1), lambda w: 0.2 * grouped(*COLUMNS)(w)),
    Case(
        GroupLasso(0.4, groups=1, size_weighted=False),
        lambda w: 0.4 * grouped(*COLUMNS, weighted=False)(w),
    ),
    Case(
        GroupLasso(0.3, groups=(0, 1)),
        lambda w: 0.3 * grouped(*KERNELS)(w),
        shape=(2, 2, 3),
    ),
    Case(
        GroupLasso(0.2, groups=()),
        lambda w: 0.2 * np.sqrt(12) * float(np.linalg.norm(w)),
    ),
    Case(
        GroupLasso(0.3, groups=UNEVEN_FLAT),
        lambda w: 0.3 * grouped(*UNEVEN)(w),
    ),
    Case(
        GroupLasso(0.3, groups=UNEVEN_FLAT, size_weighted=False),
        lambda w: 0.3 * grouped(*UNEVEN, weighted=False)(w),
    ),
    Case(L1(0.3) + L2(0.7), lambda w: 0.3 * l1(w) + 0.7 * l2(w)),
    Case(L1(0.1) + L1(0.2) + L1L2(0.1, 0.2), lambda w: 0.4 * l1(w) + 0.2 * l2(w)),
    Case(
        L1(0.1) + GroupLasso(0.2, groups=0),
        lambda w: 0.1 * l1(w) + 0.2 * grouped(*ROWS)(w),
    ),
    Case(
        GroupLasso(0.2, groups=0) + L2(0.5) + L1(0.1) + GroupLasso(0.1, groups=0),
        lambda w: 0.1 * l1(w) + 0.5 * l2(w) + 0.3 * grouped(*ROWS)(w),
    ),
    Case(
        GroupLasso(0.2, groups=0) + GroupLasso(0.2, groups=1),
        lambda w: 0.2 * grouped(*ROWS)(w) + 0.2 * grouped(*COLUMNS)(w),
        has_prox=False,
    ),
    Case(
        Orthogonal(0.6),
        lambda w: 0.6 * cosines(w),
        has_prox=False,
        kinks_at_zero=False,
    ),
    Case(
        Orthogonal(0.6, mode="columns"),
        lambda w: 0.6 * cosines(w.T),
        has_prox=False,
        kinks_at_zero=False,
    ),
    Case(2 * (L1(0.1) + L2(0.2)), lambda w: 0.2 * l1(w) + 0.4 * l2(w)),
]
