"""Penalties on a matrix as a whole."""

from __future__ import annotations

import numpy as np

from cases.case import Case
from penalize import Orthogonal


def cosines(w: np.ndarray) -> float:
    """The mean |cosine| between different rows; a row of zeros has none."""
    pairs = [(a, b) for i, a in enumerate(w) for b in w[:i]]
    norm = np.linalg.norm
    each = [abs(a @ b) / (norm(a) * norm(b)) if a.any() and b.any() else 0.0 for a, b in pairs]
    return float(np.mean(each))


CASES = [
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
]
