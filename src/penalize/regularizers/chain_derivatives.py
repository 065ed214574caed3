"""Derivatives of the proximal operators of :mod:`chains`, backwards, in NumPy on the host.

Each takes g, the gradient of some number by the result u, then w and c as the operator did, and
gives the gradients of that number by w and by c, stacked. At a solution c_i moves u as w_i does,
times (u_i − w_i)/c_i, which is what the penalty pulls with at that element.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from penalize.regularizers import chains

Array = Any


def smooth(g: Array, w: Array, c: Array) -> Array:
    """Of :func:`chains.smooth`, u = (I + 2CDᵀD)⁻¹w, where C has the c on its diagonal.

    The transpose of that matrix is C⁻¹(I + 2CDᵀD)⁻¹C; where c is 0 it is read off
    I − 2DᵀD(I + 2CDᵀD)⁻¹C.
    """
    return chains.by_position(_smooth, g, w, c, results=2)


def fused(g: Array, w: Array, c: Array) -> Array:
    """Of :func:`chains.fused`: along a run of equal u, each is the mean of the w weighted by 1/c.

    An element whose c is 0 stays as it is, and draws those of its run to itself.
    """
    return chains.by_position(_fused, g, w, c, results=2)


def _smooth(g: Array, w: Array, c: Array) -> Array:
    u, y = chains.solve_smooth(w, c), chains.solve_smooth(c * g, c)
    stays = c <= 0
    by_w = np.where(stays, g + 2 * _curvature(y), y / np.where(stays, 1.0, c))
    # Either is the same; where one cancels, the other does not.
    pulls = np.where(c < 1, 2 * _curvature(u), (u - w) / np.where(stays, 1.0, c))
    return np.stack([by_w, pulls * by_w])


def _curvature(u: Array) -> Array:
    """−DᵀDu: by how much the neighbours are above it, together."""
    d = np.diff(u, axis=0)
    edge = np.zeros_like(u[:1])
    return np.concatenate([d, edge]) - np.concatenate([edge, d])


def _fused(g: Array, w: Array, c: Array) -> Array:
    u = chains.solve_fused(w, c)
    stays = chains.is_fixed(c)
    runs = _Runs(u[1:] != u[:-1])
    # Elements that stay hang on nobody; of those beside each other, each leads its own neighbours.
    drawn = _Runs((u[1:] != u[:-1]) | (stays[1:] & stays[:-1]))
    led = drawn.sum(stays) > 0
    near = np.where(stays, 1.0, c)
    weights = np.where(led, stays, drawn.least(near) / near)  # ratios alone count, and are ≤ 1
    shares = weights / drawn.sum(weights)
    by_w = shares * drawn.sum(np.where(stays, 0.0, g)) + np.where(stays, g, 0.0)
    # Over a run the pulls sum to what pulls at its ends. What the others leave of it, those that
    # stay share, in the least norm.
    pulls = np.where(stays, 0.0, (u - w) / near)
    signs = np.sign(np.diff(u, axis=0))
    edge = np.zeros_like(u[:1])
    ends = np.concatenate([signs, edge]) - np.concatenate([edge, signs])
    rest = runs.sum(ends - pulls) / np.maximum(runs.sum(stays), 1)
    return np.stack([by_w, np.where(stays, rest, pulls) * by_w])


class _Runs:
    """Runs of positions within each chain, by where one ends and the next begins."""

    def __init__(self, breaks: Array) -> None:
        first = np.ones_like(breaks[:1])
        starts = np.concatenate([first, breaks]).T.ravel()
        self._shape = breaks.shape[1], breaks.shape[0] + 1
        self._starts = np.flatnonzero(starts)
        self._number = np.cumsum(starts) - 1

    def sum(self, x: Array) -> Array:
        """At each position, the sum over its run."""
        return self._spread(np.add, x)

    def least(self, x: Array) -> Array:
        """At each position, the least of its run."""
        return self._spread(np.minimum, x)

    def _spread(self, combine: np.ufunc, x: Array) -> Array:
        flat = np.asarray(x, dtype=np.float64).T.ravel()
        return combine.reduceat(flat, self._starts)[self._number].reshape(self._shape).T
