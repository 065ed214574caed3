"""Penalties on groups."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cases.case import (
    COLUMNS,
    ROWS,
    UNEVEN,
    UNEVEN_FLAT,
    Case,
    Reference,
    grouped,
    l1,
    l2,
)
from penalize import (
    L1,
    L2,
    ExclusiveLasso,
    GroupLasso,
    GroupMCP,
    LInf1,
    SparseGroupLasso,
    blocks,
)


def each(groups: list[list[tuple[int, ...]]], f: Callable[[np.ndarray], float]) -> Reference:
    """Σ f(w_g) over lists of index tuples."""
    return lambda w: float(sum(f(np.array([w[index] for index in group])) for group in groups))


def mcp_of_norm(strength: float, gamma: float) -> Callable[[np.ndarray], float]:
    def value(w: np.ndarray) -> float:
        slope, norm = strength * np.sqrt(len(w)), np.linalg.norm(w)
        flat = gamma * slope**2 / 2
        return float(slope * norm - norm**2 / (2 * gamma) if norm <= gamma * slope else flat)

    return value


def largest(w: np.ndarray) -> float:
    return float(np.abs(w).max())


def squared_l1(w: np.ndarray) -> float:
    return float(np.abs(w).sum() ** 2)


HALVES = [[(i, j) for i in (2 * b, 2 * b + 1) for j in range(3)] for b in (0, 1)]
KERNELS = [[(i, j, k) for k in range(3)] for i in range(2) for j in range(2)]

CASES = [
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
        GroupLasso(0.3, groups=blocks(1, 2)),
        lambda w: (
            0.3 * grouped(*[[(i, 2 * b + j) for i in range(3) for j in (0, 1)] for b in (0, 1)])(w)
        ),
    ),
    Case(
        GroupLasso(0.3, groups=blocks(-3, 2), size_weighted=False),
        lambda w: 0.3 * sum(float(np.linalg.norm(half)) for half in (w[:2], w[2:])),
        shape=(4, 2, 3),
    ),
    Case(
        SparseGroupLasso(0.4, 0.25, groups=0),
        lambda w: 0.1 * l1(w) + 0.3 * grouped(*ROWS)(w),
    ),
    Case(
        SparseGroupLasso(0.4, groups=UNEVEN_FLAT, size_weighted=False) + L2(0.1),
        lambda w: 0.2 * l1(w) + 0.2 * grouped(*UNEVEN, weighted=False)(w) + 0.1 * l2(w),
    ),
    Case(
        GroupMCP(0.3, groups=0),
        each(ROWS, mcp_of_norm(0.3, 3.0)),
        convex=False,
        prox_per_element=False,
    ),
    Case(
        GroupMCP(0.3, 1.5, groups=UNEVEN_FLAT, factor=2.0),
        lambda w: 2 * each(UNEVEN, mcp_of_norm(0.3, 1.5))(w),
        convex=False,
        prox_per_element=False,
    ),
    Case(LInf1(0.5, groups=1), lambda w: 0.5 * each(COLUMNS, largest)(w), kinks_at_zero=False),
    Case(
        LInf1(0.5, groups=UNEVEN_FLAT) + L2(0.1),
        lambda w: 0.5 * each(UNEVEN, largest)(w) + 0.1 * l2(w),
        kinks_at_zero=False,
    ),
    Case(
        LInf1(0.5, groups=blocks(0, 2)) + L1(0.1),
        lambda w: 0.5 * each(HALVES, largest)(w) + 0.1 * l1(w),
        shape=(4, 3),
        kinks_at_zero=False,
    ),
    Case(ExclusiveLasso(0.2, groups=0), lambda w: 0.2 * each(ROWS, squared_l1)(w)),
    Case(
        ExclusiveLasso(0.2, groups=UNEVEN_FLAT) + L1(0.1) + L2(0.3),
        lambda w: 0.2 * each(UNEVEN, squared_l1)(w) + 0.1 * l1(w) + 0.3 * l2(w),
    ),
    Case(ExclusiveLasso(0.2, groups=()), lambda w: 0.2 * squared_l1(w)),
]
