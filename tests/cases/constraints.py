"""Constraints: 0 where they hold, infinite elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cases.case import UNEVEN, UNEVEN_FLAT, Case, Reference, l1, l2
from penalize import (
    L1,
    L2,
    Box,
    MaxNorm,
    MinMaxNorm,
    NonNegative,
    Simplex,
    UnitNorm,
)

Draw = Callable[[np.random.Generator], np.ndarray]
TOLERANCE = 1e-5  # the values of float32


def holds(condition: Callable[[np.ndarray], bool]) -> Reference:
    return lambda w: 0.0 if condition(w) else float("inf")


def norms_in(low: float, high: float) -> Reference:
    """For one group per column."""
    return holds(lambda w: bool(_within(np.linalg.norm(w, axis=0), low, high)))


def _within(norms: np.ndarray, low: float, high: float) -> np.bool_:
    return ((norms >= low - TOLERANCE) & (norms <= high + TOLERANCE)).all()


def columns(low: float, high: float) -> Draw:
    """An array whose columns have lengths in between."""

    def draw(rng: np.random.Generator) -> np.ndarray:
        w = rng.normal(size=(3, 4))
        return w / np.linalg.norm(w, axis=0) * rng.uniform(low, high, size=4)

    return draw


def shares(rng: np.random.Generator) -> np.ndarray:
    return 2.0 * rng.dirichlet(np.full(4, 0.5), size=3)


def uneven_shares(rng: np.random.Generator) -> np.ndarray:
    w = np.empty((3, 4))
    for group in UNEVEN:
        values = rng.dirichlet(np.full(len(group), 0.7))
        for index, value in zip(group, values, strict=True):
            w[index] = value
    return w


def sums_to(total: float, w: np.ndarray) -> bool:
    return bool((w >= -TOLERANCE).all() and np.allclose(w.sum(axis=1), total, atol=TOLERANCE))


def uneven_sums(w: np.ndarray) -> bool:
    sums = [sum(w[index] for index in group) for group in UNEVEN]
    return bool((w >= -TOLERANCE).all() and np.allclose(sums, 1.0, atol=TOLERANCE))


CONSTRAINTS = [
    Case(
        NonNegative(),
        holds(lambda w: bool((w >= 0).all())),
        feasible=lambda rng: rng.exponential(size=(3, 4)) * rng.integers(0, 2, size=(3, 4)),
    ),
    Case(
        Box(-0.5, 0.2),
        holds(lambda w: bool(((w >= -0.5 - TOLERANCE) & (w <= 0.2 + TOLERANCE)).all())),
        feasible=lambda rng: rng.uniform(-0.5, 0.2, size=(3, 4)),
    ),
    Case(MaxNorm(1.5, groups=1), norms_in(0.0, 1.5), feasible=columns(0.0, 1.5)),
    Case(
        UnitNorm(groups=-1),
        norms_in(1.0, 1.0),
        feasible=columns(1.0, 1.0),
        convex=False,
        prox_per_element=False,
    ),
    Case(
        MinMaxNorm(0.5, 1.2, groups=1),
        norms_in(0.5, 1.2),
        feasible=columns(0.5, 1.2),
        convex=False,
        prox_per_element=False,
    ),
    Case(Simplex(2.0, groups=0), holds(lambda w: sums_to(2.0, w)), feasible=shares),
    Case(Simplex(groups=UNEVEN_FLAT), holds(uneven_sums), feasible=uneven_shares),
]

SUMS = [
    Case(
        NonNegative() + L1(0.2) + L2(0.1),
        lambda w: holds(lambda w: bool((w >= 0).all()))(w) + 0.2 * l1(w) + 0.1 * l2(w),
        feasible=lambda rng: rng.exponential(size=(3, 4)) * rng.integers(0, 2, size=(3, 4)),
    ),
    Case(
        L1(0.2) + MaxNorm(1.5, groups=1),
        lambda w: norms_in(0.0, 1.5)(w) + 0.2 * l1(w),
        feasible=columns(0.0, 1.5),
    ),
    Case(
        Simplex(2.0, groups=0) + L2(0.3),
        lambda w: holds(lambda w: sums_to(2.0, w))(w) + 0.3 * l2(w),
        feasible=shares,
    ),
]

CASES = CONSTRAINTS + SUMS
