"""Exact algorithms along chains of neighbours, in NumPy: from element to element, all rows at once.

Each takes arrays whose last axis is the chain, and treats the others alike. What an array program
cannot express runs here, on the host; the backends' ``host`` calls it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Array = Any


def fused(w: Array, c: Array) -> Array:
    """argmin_u Σ (u_i − w_i)²/(2c_i) + Σ |u_{i+1} − u_i| along the last axis.

    The derivative of the minimum over the first elements, as a function of the next, is continuous,
    piecewise linear, rises, and is cut off at ±1 (Johnson, 2013). Its knots are kept in order; each
    enters at one end and leaves once, so the time is linear. Where c is 0 an element stays, which
    is a slope of infinity there: a very steep one stands for it.
    """
    if not w.size or w.shape[-1] < 2:
        return w.copy()
    rows = w.reshape(-1, w.shape[-1]).astype(np.float64)
    weights = c.reshape(rows.shape).astype(np.float64)
    moves = weights.max(axis=1) > 0
    found = rows.copy()
    if moves.any():
        kept, steps = rows[moves], weights[moves]
        floor = 1e-12 * steps.max(axis=1, keepdims=True)
        found[moves] = _fused(kept, 1.0 / np.maximum(steps, floor))
    return found.reshape(w.shape).astype(w.dtype)


def _fused(w: Array, slope: Array) -> Array:
    """The same with slopes 1/c_i > 0."""
    count, n = w.shape
    knots = _Knots(count, 2 * n)
    lows, highs = np.empty((count, n - 1)), np.empty((count, n - 1))
    for i in range(n - 1):
        a, b = slope[:, i], -slope[:, i] * w[:, i]
        # Outside of its knots the derivative of what came before is −1 and 1; with this element
        # a·x + b is added. Going inwards, each end stops where the whole reaches −1, or 1.
        before = 0.0 if i == 0 else 1.0
        low, high = knots.cut(a, b - before, -1.0, 1), knots.cut(a, b + before, 1.0, -1)
        knots.put(low, high)
        lows[:, i], highs[:, i] = low.x, high.x
    a, b = slope[:, -1], -slope[:, -1] * w[:, -1] - 1.0
    found = np.empty_like(w)
    found[:, -1] = knots.cut(a, b, 0.0, 1).x
    for i in range(n - 2, -1, -1):
        found[:, i] = np.clip(found[:, i + 1], lows[:, i], highs[:, i])
    return found


class _Cut(NamedTuple):
    """Where a function reaches a bound, and its slope and intercept there."""

    x: Array
    a: Array
    b: Array


class _Knots:
    """The knots of one function for each row, in order, between ``left`` and ``right``."""

    def __init__(self, count: int, room: int) -> None:
        self.rows = np.arange(count)
        self.at = np.zeros((count, room))
        # What slope and intercept change by at a knot, from left to right.
        self.turns, self.lifts = np.zeros((count, room)), np.zeros((count, room))
        self.left, self.right = np.full(count, room // 2), np.full(count, room // 2 - 1)

    def cut(self, a: Array, b: Array, bound: float, direction: int) -> _Cut:
        """Where the derivative reaches a bound.

        Args:
            a, b: slope and intercept outside of all knots.
            bound: what is to be reached. The knots that are passed on the way are dropped.
            direction: 1 from the left, −1 from the right.
        """
        a, b = a.copy(), b.copy()
        position = self.left if direction > 0 else self.right
        while True:
            inside = (self.left <= position) & (position <= self.right)
            here = self.rows, np.where(inside, position, 0)
            passing = inside & ~((a * self.at[here] + b - bound) * direction > 0)
            if not passing.any():
                break
            a += np.where(passing, direction * self.turns[here], 0.0)
            b += np.where(passing, direction * self.lifts[here], 0.0)
            position = position + direction * passing
            if direction > 0:
                self.left = position
            else:
                self.right = position
        return _Cut((bound - b) / a, a, b)

    def put(self, low: _Cut, high: _Cut) -> None:
        """New knots at both ends: −1 is to the left of the one, 1 to the right of the other."""
        self.left, self.right = self.left - 1, self.right + 1
        left, right = (self.rows, self.left), (self.rows, self.right)
        self.at[left], self.turns[left], self.lifts[left] = low.x, low.a, low.b + 1.0
        self.at[right], self.turns[right], self.lifts[right] = high.x, -high.a, 1.0 - high.b


def smoothed(w: Array, c: Array) -> Array:
    """The u with u_i + c_i·(DᵀDu)_i = w_i along the last axis: Thomas' elimination.

    The system is diagonally dominant, so that it needs no pivots.
    """
    if not w.size or w.shape[-1] < 2:
        return w.copy()
    rows = w.reshape(-1, w.shape[-1]).astype(np.float64)
    weights = c.reshape(rows.shape).astype(np.float64)
    n = rows.shape[1]
    u = rows.copy()
    ratio = np.empty_like(rows)
    for i in range(n):
        links = float(i > 0) + float(i < n - 1)
        pivot = 1.0 + links * weights[:, i]
        if i > 0:
            pivot = pivot - weights[:, i] * ratio[:, i - 1]
            u[:, i] += weights[:, i] * u[:, i - 1]
        u[:, i] /= pivot
        ratio[:, i] = weights[:, i] / pivot
    for i in range(n - 2, -1, -1):
        u[:, i] += ratio[:, i] * u[:, i + 1]
    return u.reshape(w.shape).astype(w.dtype)


def least_norm_slopes(w: Array) -> Array:
    """The shortest subgradient of Σ |w_{i+1} − w_i| along the last axis.

    It is Dᵀz, where z is the sign of each difference, and free in [−1, 1] where that is 0. Over a
    run of equal elements the sum is what z is at its ends, whatever it is in between, and shortest
    if it is spread evenly: z runs in a straight line from one end to the other, which it may.
    """
    rows = w.reshape(-1, w.shape[-1]).astype(np.float64)
    count, n = rows.shape
    z = np.zeros((count, n + 1))  # before each element, and after the last
    z[:, 1:-1] = np.sign(np.diff(rows, axis=1))
    ends = np.ones((count, n + 1), dtype=bool)
    ends[:, 1:-1] = z[:, 1:-1] != 0
    # The run of each element, numbered through all rows.
    run = np.cumsum(ends[:, :-1].ravel()) - 1
    length = np.bincount(run, minlength=count)
    pull = np.bincount(run, weights=(z[:, :-1] - z[:, 1:]).ravel())
    return (pull / length)[run].reshape(w.shape).astype(w.dtype)
