"""Penalties on groups."""

from __future__ import annotations

import numpy as np

from cases.case import COLUMNS, ROWS, UNEVEN, UNEVEN_FLAT, Case, grouped, l1, l2
from penalize import L1, L2, GroupLasso, blocks

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
]
