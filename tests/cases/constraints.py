"""Constraints: 0 where they hold, infinite elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cases.case import COLUMNS, ROWS, UNEVEN, UNEVEN_FLAT, Case, Reference, l2
from penalize import L1, L2, Box, MaxNorm, MinMaxNorm, NonNegative, Simplex, UnitNorm, blocks

Drawn = Callable[[np.random.Generator], np.ndarray]
Index = tuple[int, ...]

WHOLE = [list(np.ndindex(3, 4))]
HALVES = [[(i, 2 * b + j) for i in range(3) for j in (0, 1)] for b in (0, 1)]
KERNELS = [[(i, j, k) for k in range(3)] for i in range(2) for j in range(2)]


def holds(test: Callable[[np.ndarray], object]) -> Reference:
    return lambda w: 0.0 if test(w) else np.inf


def in_each(groups: list[list[Index]], test: Callable[[np.ndarray], object]) -> Reference:
    return holds(lambda w: all(test(np.array([w[i] for i in group])) for group in groups))


def between(low: float, high: float) -> Callable[[np.ndarray], object]:
    """Whether the norm lies there, up to rounding of the references' own."""
    return lambda x: low * (1 - 1e-9) <= np.linalg.norm(x) <= high * (1 + 1e-9)


def sums_to(total: float) -> Callable[[np.ndarray], object]:
    return lambda x: (x >= 0).all() and abs(x.sum() - total) <= 1e-9 * total


def drawn(
    groups: list[list[Index]],
    draw: Callable[[np.random.Generator, int], np.ndarray],
    shape: Index = (3, 4),
) -> Drawn:
    """An array whose groups are drawn one by one."""

    def array(rng: np.random.Generator) -> np.ndarray:
        w = np.empty(shape)
        for group in groups:
            for index, value in zip(group, draw(rng, len(group)), strict=True):
                w[index] = value
        return w

    return array


def of_norm(low: float, high: float) -> Callable[[np.random.Generator, int], np.ndarray]:
    def draw(rng: np.random.Generator, size: int) -> np.ndarray:
        x = rng.normal(size=size)
        return np.asarray(x / np.linalg.norm(x) * rng.choice([low, high, rng.uniform(low, high)]))

    return draw


def of_sum(total: float) -> Callable[[np.random.Generator, int], np.ndarray]:
    """Inside of the simplex, and with elements at 0."""
    return lambda rng, size: total * rng.dirichlet(np.full(size, rng.choice([0.1, 1.0])))


CASES = [
    Case(
        NonNegative(),
        holds(lambda w: (w >= 0).all()),
        feasible=lambda rng: np.maximum(rng.normal(size=(3, 4)), 0),
    ),
    Case(
        Box(-0.5, 0.7),
        holds(lambda w: (w >= -0.5).all() and (w <= 0.7).all()),
        feasible=lambda rng: rng.uniform(-0.5, 0.7, size=(3, 4)),
    ),
    Case(
        Box(high=-0.2),
        holds(lambda w: (w <= -0.2).all()),
        feasible=lambda rng: np.minimum(rng.normal(size=(3, 4)), -0.2),
    ),
    Case(
        NonNegative() + L1(0.3) + L2(0.2),
        lambda w: 0.3 * w.sum() + 0.2 * l2(w) if (w >= 0).all() else np.inf,
        feasible=lambda rng: np.maximum(rng.normal(size=(3, 4)), 0),
    ),
    Case(
        MaxNorm(0.8, groups=0),
        in_each(ROWS, between(0, 0.8)),
        feasible=drawn(ROWS, of_norm(0, 0.8)),
    ),
    Case(
        MaxNorm(1.5, groups=()),
        in_each(WHOLE, between(0, 1.5)),
        feasible=drawn(WHOLE, of_norm(0, 1.5)),
    ),
    Case(
        MaxNorm(0.8, groups=UNEVEN_FLAT),
        in_each(UNEVEN, between(0, 0.8)),
        feasible=drawn(UNEVEN, of_norm(0, 0.8)),
    ),
    Case(
        MaxNorm(0.8, groups=blocks(1, 2)) + L1(0.1),
        lambda w: 0.1 * np.abs(w).sum() + in_each(HALVES, between(0, 0.8))(w),
        feasible=drawn(HALVES, of_norm(0, 0.8)),
    ),
    Case(
        MaxNorm(0.8, groups=(0, 1)) + L2(0.3),
        lambda w: 0.3 * l2(w) + in_each(KERNELS, between(0, 0.8))(w),
        shape=(2, 2, 3),
        feasible=drawn(KERNELS, of_norm(0, 0.8), (2, 2, 3)),
    ),
    Case(
        UnitNorm(groups=1),
        in_each(COLUMNS, between(1, 1)),
        feasible=drawn(COLUMNS, of_norm(1, 1)),
        convex=False,
        prox_per_element=False,
    ),
    Case(
        UnitNorm(groups=UNEVEN_FLAT) + L2(0.1),
        lambda w: 0.1 * l2(w) + in_each(UNEVEN, between(1, 1))(w),
        feasible=drawn(UNEVEN, of_norm(1, 1)),
        convex=False,
        prox_per_element=False,
    ),
    Case(
        MinMaxNorm(0.5, 0.8, groups=blocks(1, 2)),
        in_each(HALVES, between(0.5, 0.8)),
        feasible=drawn(HALVES, of_norm(0.5, 0.8)),
        convex=False,
        prox_per_element=False,
    ),
    Case(
        MinMaxNorm(0.0, 0.8, groups=1),
        in_each(COLUMNS, between(0, 0.8)),
        feasible=drawn(COLUMNS, of_norm(0, 0.8)),
    ),
    Case(
        Simplex(groups=0),
        in_each(ROWS, sums_to(1.0)),
        feasible=drawn(ROWS, of_sum(1.0)),
    ),
    Case(
        Simplex(2.0, groups=UNEVEN_FLAT),
        in_each(UNEVEN, sums_to(2.0)),
        feasible=drawn(UNEVEN, of_sum(2.0)),
    ),
    Case(
        Simplex(0.7, groups=blocks(1, 2)) + L2(0.2),
        lambda w: 0.2 * l2(w) + in_each(HALVES, sums_to(0.7))(w),
        feasible=drawn(HALVES, of_sum(0.7)),
    ),
    Case(
        Simplex(0.7, groups=()),
        in_each(WHOLE, sums_to(0.7)),
        feasible=drawn(WHOLE, of_sum(0.7)),
    ),
    Case(
        Simplex(0.7, groups=(0, 1)),
        in_each(KERNELS, sums_to(0.7)),
        shape=(2, 2, 3),
        feasible=drawn(KERNELS, of_sum(0.7), (2, 2, 3)),
    ),
]
