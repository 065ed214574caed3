"""Penalties on the differences of neighbours."""

from __future__ import annotations

import numpy as np

from cases.case import Case, l1, l2
from penalize import L1, L2, FusedLasso, Smoothness


def variation(w: np.ndarray, axis: int = -1) -> float:
    return float(np.abs(np.diff(w, axis=axis)).sum())


def roughness(w: np.ndarray, axis: int = -1) -> float:
    return float((np.diff(w, axis=axis) ** 2).sum())


CASES = [
    Case(FusedLasso(0.3), lambda w: 0.3 * variation(w), kinks_at_zero=False),
    Case(FusedLasso(0.3, axis=0), lambda w: 0.3 * variation(w, 0), (7, 2), kinks_at_zero=False),
    Case(FusedLasso(0.2, axis=1), lambda w: 0.2 * variation(w, 1), (2, 5, 2), kinks_at_zero=False),
    Case(FusedLasso(0.2), lambda w: 0.2 * variation(w), (9,), kinks_at_zero=False),
    Case(FusedLasso(0.2), lambda w: 0.0, (4, 1)),
    Case(
        FusedLasso(0.2) + L2(0.3),
        lambda w: 0.2 * variation(w) + 0.3 * l2(w),
        kinks_at_zero=False,
    ),
    Case(
        FusedLasso(0.2) + L1(0.1),
        lambda w: 0.2 * variation(w) + 0.1 * l1(w),
        kinks_at_zero=False,
        prox_per_element=False,
    ),
    Case(Smoothness(0.4), lambda w: 0.4 * roughness(w), kinks_at_zero=False),
    Case(Smoothness(0.4, axis=0), lambda w: 0.4 * roughness(w, 0), (7, 2), kinks_at_zero=False),
    Case(
        Smoothness(0.4, axis=-2) + L2(0.1),
        lambda w: 0.4 * roughness(w, -2) + 0.1 * l2(w),
        kinks_at_zero=False,
    ),
]
