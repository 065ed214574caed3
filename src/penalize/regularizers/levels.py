"""The level down to which the elements of a group are cut, found by sorting them.

Three proximal operators come down to one equation for one number per group, as the projection onto
a simplex does (Held, Wolfe and Crowder, Validation of subgradient optimization, 1974).
"""

from __future__ import annotations

import math

from penalize.backends import Array, Backend


def level(m: Array, a: Array, b: Array, c: float, xp: Backend) -> Array:
    """The root ν of Σ_i (m_i − a_i·ν)_+ = b + c·ν in each row, as a column.

    F(ν), the left less the right, is convex and decreases. For any set K of elements, the line
    Σ_{i∈K} (m_i − a_i·ν) − b − c·ν is nowhere above F, so its root (Σ_K m − b)/(c + Σ_K a) is at
    most that of F; and it is that of F where K holds the elements with m_i > a_i·ν, which are the
    first so many in the order of m_i/a_i. So the root is the largest of the roots of these lines.

    A step of Newton's method then takes away what the running sums have rounded.

    Args:
        m: a matrix. What must have no effect is 0 in it, and in a.
        a: of the same shape, ≥ 0. Where it is 0, (m_i)_+ is in the sum whatever ν is.
        b: a number, or a column.
        c: a number ≥ 0. The root exists where c > 0, or where some a > 0 and b ≥ 0 is less than
            what the left side grows to; a row without any a > 0 gives no number of a meaning.
        xp: the array functions.
    """
    # Comparisons are so turned that they are false where a NaN is to stay visible.
    fixed = a <= 0
    always = xp.where(m > 0, math.inf, 0.0 * m - math.inf)
    ratios = _parts(m, xp) / xp.where(fixed, 1.0, at_least(xp.eps(m) ** 3, _parts(a, xp), xp))
    order = xp.descending(xp.where(fixed, always, ratios))
    slopes = c + xp.cumsum(xp.along(a, order))
    flat = slopes <= 0
    roots = (xp.cumsum(xp.along(m, order)) - b) / xp.where(flat, 1.0, slopes)
    root = xp.max(xp.where(flat, roots[..., -1:], roots))
    left = m - a * root
    rest = xp.sum(xp.where(left > 0, left, 0.0), [-1]) - b - c * root
    # With those at the kink, the slope is that on either side, or steeper: never beyond the root.
    near = left > -64 * xp.eps(m) * xp.abs(m)
    slope = c + xp.sum(xp.where(near, a, 0.0), [-1])
    return root + xp.where(slope <= 0, 0.0, rest / xp.where(slope <= 0, 1.0, slope))


def _parts(x: Array, xp: Backend) -> Array:
    """x over the largest |x| of its row, so that a ratio to be sorted by does not overflow."""
    top = xp.max(xp.abs(x))
    return x / xp.where(top <= 0, 1.0, top)


def at_least(least: float | Array, x: Array, xp: Backend) -> Array:
    """The larger of both; NaN where x is."""
    return xp.where(x < least, least, x)
