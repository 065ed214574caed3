"""Penalties on a matrix as a whole."""

from __future__ import annotations

from typing import Any

import numpy as np

from cases.case import Case
from penalize import L2, LogDet, NuclearNorm, Orthogonal, SoftOrthogonal, SpectralNorm


def cosines(w: np.ndarray) -> float:
    """The mean |cosine| between different rows; a row of zeros has none."""
    pairs = [(a, b) for i, a in enumerate(w) for b in w[:i]]
    norm = np.linalg.norm
    each = [abs(a @ b) / (norm(a) * norm(b)) if a.any() and b.any() else 0.0 for a, b in pairs]
    return float(np.mean(each))


def values(w: np.ndarray, rows: tuple[int, ...] = (0,)) -> np.ndarray:
    """The singular values of an array as a matrix with these axes as its rows."""
    first = np.moveaxis(w, rows, range(len(rows)))
    matrix = first.reshape(int(np.prod([w.shape[axis] for axis in rows])), -1)
    return np.linalg.svd(matrix, compute_uv=False)


def from_orthonormal(x: np.ndarray) -> float:
    return float(((x @ x.T - np.eye(len(x))) ** 2).sum())


SPECTRAL: dict[str, Any] = {
    "kinks_at_zero": False,
    "prox_per_element": False,
    "nan_raises": True,
    "once_differentiable": True,
}
CONV = (4, 3, 2, 2)

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
    Case(NuclearNorm(0.3), lambda w: 0.3 * float(values(w).sum()), **SPECTRAL),
    Case(NuclearNorm(0.3), lambda w: 0.3 * float(values(w).sum()), (4, 2), **SPECTRAL),
    Case(
        NuclearNorm(0.3, rows=0) + L2(0.1),
        lambda w: 0.3 * float(values(w).sum()) + 0.1 * float((w**2).sum()),
        CONV,
        **SPECTRAL,
    ),
    Case(
        NuclearNorm(0.3, rows=(-1, 0)),
        lambda w: 0.3 * float(values(w, (0, 3)).sum()),
        CONV,
        **SPECTRAL,
    ),
    Case(SpectralNorm(0.3), lambda w: 0.3 * float(values(w)[0] ** 2), **SPECTRAL),
    Case(
        SpectralNorm(0.3, rows=-1),
        lambda w: 0.3 * float(values(w, (3,))[0] ** 2),
        CONV,
        **SPECTRAL,
    ),
    Case(
        SpectralNorm(0.3, iterations=40),
        lambda w: 0.3 * float(values(w)[0] ** 2),
        has_prox=False,
        kinks_at_zero=False,
    ),
    Case(
        LogDet(0.3, epsilon=0.5),
        lambda w: 0.3 * float(np.log1p(values(w) ** 2 / 0.5).sum()),
        has_prox=False,
        convex=False,
        kinks_at_zero=False,
        nan_raises=True,
        once_differentiable=True,
    ),
    Case(
        SoftOrthogonal(0.2),
        lambda w: 0.2 * from_orthonormal(w),
        scale=10.0,
        convex=False,
        has_prox=False,
        kinks_at_zero=False,
    ),
    Case(
        SoftOrthogonal(0.2, mode="columns", rows=(0, 2)),
        lambda w: 0.2 * from_orthonormal(w.transpose(1, 3, 0, 2).reshape(6, 8)),
        CONV,
        scale=10.0,
        convex=False,
        has_prox=False,
        kinks_at_zero=False,
    ),
]
