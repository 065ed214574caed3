"""Penalties on groups."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cases.case import COLUMNS, ROWS, UNEVEN, UNEVEN_FLAT, Case, Reference, grouped, l1, l2
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

KERNELS = [[(i, j, k) for k in range(3)] for i in range(2) for j in range(2)]
HALVES = [[(i, 2 * b + j) for i in range(3) for j in (0, 1)] for b in (0, 1)]
WHOLE = [list(np.ndindex(3, 4))]


def each(groups: list[list[tuple[int, ...]]], f: Callable[[np.ndarray], float]) -> Reference:
    """The sum of a function of each group."""
    return lambda w: float(sum(f(np.array([w[index] for index in group])) for group in groups))


def mcp(strength: float, gamma: float, weighted: bool = True) -> Callable[[np.ndarray], float]:
    """∫_0^‖x‖ (λ − t/γ)_+ dt."""

    def value(x: np.ndarray) -> float:
        height = strength * (np.sqrt(x.size) if weighted else 1.0)
        end = min(float(np.linalg.norm(x)), gamma * height)
        return height * end - end**2 / (2 * gamma)

    return value


def largest(x: np.ndarray) -> float:
    return float(np.abs(x).max())


def squared_sum(x: np.ndarray) -> float:
    return float(np.abs(x).sum()) ** 2


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
        SparseGroupLasso(0.4, alpha=0.25, groups=0),
        lambda w: 0.1 * l1(w) + 0.3 * grouped(*ROWS)(w),
    ),
    Case(
        SparseGroupLasso(0.4, groups=UNEVEN_FLAT, size_weighted=False),
        lambda w: 0.2 * l1(w) + 0.2 * grouped(*UNEVEN, weighted=False)(w),
    ),
    Case(SparseGroupLasso(0.4, alpha=1.0, groups=1), lambda w: 0.4 * l1(w)),
    Case(
        L1(0.1) + SparseGroupLasso(0.4, 0.75, groups=1) + L2(0.2) + GroupLasso(0.1, groups=1),
        lambda w: 0.4 * l1(w) + 0.2 * l2(w) + 0.2 * grouped(*COLUMNS)(w),
    ),
    Case(
        GroupMCP(0.3, groups=0),
        each(ROWS, mcp(0.3, 3.0)),
        convex=False,
        prox_per_element=False,
    ),
    Case(
        2.5 * GroupMCP(0.4, gamma=1.5, groups=UNEVEN_FLAT),
        lambda w: 2.5 * each(UNEVEN, mcp(0.4, 1.5))(w),
        convex=False,
        prox_per_element=False,
    ),
    Case(
        GroupMCP(0.7, gamma=2.0, groups=blocks(1, 2), size_weighted=False) + L2(0.1),
        lambda w: 0.1 * l2(w) + each(HALVES, mcp(0.7, 2.0, weighted=False))(w),
        convex=False,
        prox_per_element=False,
    ),
    Case(
        GroupMCP(0.3, groups=()),
        each(WHOLE, mcp(0.3, 3.0)),
        convex=False,
        prox_per_element=False,
    ),
    Case(LInf1(0.4, groups=0), lambda w: 0.4 * each(ROWS, largest)(w)),
    Case(LInf1(0.4, groups=UNEVEN_FLAT), lambda w: 0.4 * each(UNEVEN, largest)(w)),
    Case(LInf1(0.4, groups=()), lambda w: 0.4 * largest(w)),
    Case(
        LInf1(0.4, groups=(0, 1)),
        lambda w: 0.4 * each(KERNELS, largest)(w),
        shape=(2, 2, 3),
    ),
    Case(
        L1(0.1) + LInf1(0.4, groups=blocks(1, 2)) + L2(0.2),
        lambda w: 0.1 * l1(w) + 0.2 * l2(w) + 0.4 * each(HALVES, largest)(w),
    ),
    Case(ExclusiveLasso(0.2, groups=0), lambda w: 0.2 * each(ROWS, squared_sum)(w)),
    Case(
        ExclusiveLasso(0.2, groups=UNEVEN_FLAT),
        lambda w: 0.2 * each(UNEVEN, squared_sum)(w),
    ),
    Case(ExclusiveLasso(0.2, groups=()), lambda w: 0.2 * l1(w) ** 2),
    Case(
        ExclusiveLasso(0.2, groups=(0, 1)),
        lambda w: 0.2 * each(KERNELS, squared_sum)(w),
        shape=(2, 2, 3),
    ),
    Case(
        L1(0.1) + ExclusiveLasso(0.2, groups=blocks(1, 2)) + L2(0.2),
        lambda w: 0.1 * l1(w) + 0.2 * l2(w) + 0.2 * each(HALVES, squared_sum)(w),
    ),
]
