"""Proximal operators of chains of neighbours, exactly and in linear time, in NumPy on the host.

A chain is the last axis; all others are treated alike. Both loop over positions, and work on all
chains at once. ``c`` holds the step times the strength, one for each element; an element whose c is
0 stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any

# Elements that are worked on at once: they need about 80 bytes each.
_AT_ONCE = 2**20


def smooth(w: Array, c: Array) -> Array:
    """argmin_u ½ Σ (u_i − w_i)²/c_i + Σ (u_{i+1} − u_i)²."""
    return w.copy() if w.shape[-1] < 2 else by_position(solve_smooth, w, c)


def fused(w: Array, c: Array) -> Array:
    """argmin_u ½ Σ (u_i − w_i)²/c_i + Σ |u_{i+1} − u_i|."""
    return w.copy() if w.shape[-1] < 2 else by_position(solve_fused, w, c)


def by_position(f: Callable[..., Array], *arrays: Array, results: int | None = None) -> Array:
    """f of arrays in float64 whose first axis are the positions, the second the chains.

    Args:
        f: a function of them. It gives one array of that shape, or several stacked.
        arrays: all of one shape, or to be repeated.
        results: how many are stacked; None for one.
    """
    arrays = np.broadcast_arrays(*arrays)  # under jax.vmap one of them may be repeated
    shape, dtype = arrays[0].shape, arrays[0].dtype
    out = np.empty((*([] if results is None else [results]), *shape), dtype)
    if not out.size:
        return out
    rows = [x.reshape(-1, shape[-1]) for x in arrays]
    into = out.reshape(-1, *rows[0].shape)
    count = max(1, _AT_ONCE // shape[-1])
    for start in range(0, len(rows[0]), count):
        part = slice(start, start + count)
        given = (np.array(x[part].T, dtype=np.float64, order="C") for x in rows)
        with np.errstate(all="ignore"):  # NaN and infinity come through
            into[:, part] = np.swapaxes(f(*given), -1, -2)
    return out


def solve_smooth(w: Array, c: Array) -> Array:
    """Elimination in (1 + α_i + β_i)u_i − α_i u_{i−1} − β_i u_{i+1} = w_i.

    The pivot is kept as β_i plus a rest r_i, so that only positive numbers are added: nothing
    cancels, however large the steps are.
    """
    pulls = 2 * c
    right, pivots = w.copy(), np.empty_like(w)
    rest = np.ones_like(w[0])
    for i in range(len(w)):
        if i:
            share = pulls[i] / pivots[i - 1]
            right[i] += share * right[i - 1]
            rest = 1 + share * rest
        pivots[i] = rest + pulls[i] if i < len(w) - 1 else rest
    for i in range(len(w) - 1, -1, -1):
        if i < len(w) - 1:
            right[i] += pulls[i] * right[i + 1]
        right[i] /= pivots[i]
    return right


@dataclass
class _Message:
    """The derivative, by u_i, of the least cost of the chain up to i, for each of the chains.

    It is piecewise linear in u and increasing. What goes on to the next element is cut off at ±λ.
    The piece that was cut off last at element m (m = 0: never) is
    sign·λ + Σ_{m < j ≤ i} a_j(u − w_j); differences of prefix sums, in twice the precision, give
    it. So no rounding error is carried along, however different the steps are.
    """

    sums: Array
    """(4, positions + 1, chains): Σ a_j in two parts, and Σ a_j w_j."""

    bound: Array
    """λ, one for each chain."""

    knots: Array
    """(places, chains): where one piece ends and the next begins."""

    cut_at: Array
    """The m of the piece to the right of each knot; that of the leftmost lies one place before."""

    signs: Array
    first: Array
    """The place of the first knot, one for each chain."""

    last: Array

    def line(self, i: int, places: Array, chains: Array) -> tuple[Array, Array]:
        """Slope and value at 0 of pieces after element i (counted from 1)."""
        m = self.cut_at[places, chains]
        a, a_low, b, b_low = self.sums[:, i, chains] - self.sums[:, m, chains]
        return a + a_low, self.signs[places, chains] * self.bound[chains] - (b + b_low)

    def crossing(self, i: int, side: int, level: Array, start: Array, end: Array) -> Array:
        """Where the slope reaches a level, searched from the left (side = 1) or the right (−1).

        ``start`` has the outermost knot; it comes back as the first that is not passed.
        """
        behind = (1 - side) // 2  # the piece before a knot lies one place before its own
        near = np.full(start.shape, -side * np.inf)
        todo = np.flatnonzero(side * (end - start) >= 0)
        while todo.size:
            at = start[todo]
            slope, value = self.line(i, at - 1 + behind, todo)
            knot = self.knots[at, todo]
            passed = side * (slope * knot + value - level[todo]) <= 0
            todo = todo[passed]
            near[todo] = knot[passed]
            start[todo] += side
            todo = todo[side * (end[todo] - start[todo]) >= 0]
        chains = np.arange(start.size)
        slope, value = self.line(i, start - 1 + behind, chains)
        found = (level - value) / slope
        # At a jump it lies at the knot itself.
        return np.maximum(found, near) if side > 0 else np.minimum(found, near)

    def cut(self, i: int, low: Array, high: Array, first: Array, last: Array) -> None:
        """Cut off at ±λ, which it reaches at ``low`` and ``high``, outside of these knots."""
        chains = np.arange(first.size)
        self.first, self.last = first - 1, last + 1
        self.knots[self.first, chains], self.knots[self.last, chains] = low, high
        for place, sign in ((self.first - 1, -1), (self.last, 1)):
            self.cut_at[place, chains], self.signs[place, chains] = i, sign


def solve_fused(w: Array, c: Array) -> Array:
    """Johnson's dynamic programming, and the way back."""
    length, chains = w.shape
    bound = c.max(axis=0)
    fixed = is_fixed(c)
    message = _message(w, np.where(fixed, 0.0, bound / np.where(fixed, 1.0, c)), bound)
    low, high = np.empty_like(w), np.empty_like(w)
    for i in range(length):
        first, last = message.first.copy(), message.last.copy()
        if i == length - 1:
            low[i] = message.crossing(length, 1, np.zeros(chains), first, last)
            break
        low[i] = message.crossing(i + 1, 1, -bound, first, last)
        high[i] = message.crossing(i + 1, -1, bound, last, first)
        # An element that stays: a jump from −λ to λ at one knot, and all before is settled.
        stays = fixed[i]
        low[i][stays] = high[i][stays] = w[i][stays]
        last[stays] = first[stays] - 2
        message.cut(i + 1, low[i], high[i], first, last)
    u = np.where(fixed, w, low)
    for i in range(length - 2, -1, -1):
        kept = np.minimum(np.maximum(u[i + 1], low[i]), high[i])
        u[i] = np.where(fixed[i], w[i], kept)
    return u


def is_fixed(c: Array) -> Array:
    """Which elements stay: they would move by at most 2c, and the sums could not hold their 1/c."""
    return c <= 1e-18 * c.max(axis=0)


def _message(w: Array, slopes: Array, bound: Array) -> _Message:
    length, chains = w.shape
    places = (2 * length + 4, chains)
    middle = length + 2
    return _Message(
        np.concatenate([_prefix_sums(slopes), _prefix_sums(slopes * w)]),
        bound,
        knots=np.zeros(places),
        cut_at=np.zeros(places, dtype=np.int32),
        signs=np.zeros(places, dtype=np.int8),
        first=np.full(chains, middle),
        last=np.full(chains, middle - 1),
    )


def _prefix_sums(x: Array) -> Array:
    """Sums of none, one, two, … of them, and what rounding took from each (Knuth's two-sum)."""
    sums = np.zeros((2, len(x) + 1, *x.shape[1:]))
    for i, term in enumerate(x):
        total, low = sums[:, i]
        rounded = total + term
        rest = rounded - total
        low = low + ((total - (rounded - rest)) + (term - rest))
        sums[0, i + 1] = rounded + low
        sums[1, i + 1] = low - (sums[0, i + 1] - rounded)
    return sums
