"""What one row of the table of cases is, and reference functions that rows share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from penalize import Regularizer

Reference = Callable[[np.ndarray], float]


@dataclass(frozen=True)
class Case:
    """One regularizer, and its value written again with NumPy in float64 and nothing of ours.

    The gradient is checked against finite differences of the reference, the proximal operator
    against numerical minima of it, so a reference is all that a row needs.
    """

    regularizer: Regularizer
    reference: Reference
    shape: tuple[int, ...] = (3, 4)
    has_prox: bool = True
    prox_per_element: bool = True
    """Whether prox takes a step for each element."""

    convex: bool = True
    scale: float = 300.0
    """Of weights in half precision: as large as the gradient can hold."""

    kinks_at_zero: bool = True
    """Whether every kink of Ω is at an element that is 0, where 0 is a subgradient."""

    feasible: Callable[[np.random.Generator], np.ndarray] | None = None
    """For a constraint: draws an array that satisfies it. Its reference is 0 or infinite."""

    curved_at_zero: bool = False
    """Whether it is smooth at zero and not flat there, beside any L2 in it."""

    once_differentiable: bool = False
    """Whether the framework may differentiate the value once only."""

    typed: bool = True
    """Whether its repr can be typed in again: not with an array or a function in it."""

    saved: bool = True
    """Whether its configuration can be read back: not with a function in it."""

    nan_raises: bool = False
    """Whether NumPy and PyTorch refuse a NaN, as their matrix factorizations do."""

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


ROWS = [[(i, j) for j in range(4)] for i in range(3)]
COLUMNS = [[(i, j) for i in range(3)] for j in range(4)]
UNEVEN = [
    [(0, 0), (2, 3)],
    [(0, 1), (0, 2), (0, 3), (1, 0)],
    [(1, 1)],
    [(1, 2), (1, 3), (2, 0), (2, 1), (2, 2)],
]
UNEVEN_FLAT = [[0, 11], [1, 2, 3, 4], [5], [6, 7, 8, 9, 10]]
