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
    weighs = a > 0
    always = xp.where(m > 0, math.inf, 0.0 * m - math.inf)
    order = xp.descending(xp.where(weighs, m / xp.where(weighs, a, 1.0), always))
    slopes = c + xp.cumsum(xp.along(a, order))
    falls = slopes > 0
    roots = (xp.cumsum(xp.along(m, order)) - b) / xp.where(falls, slopes, 1.0)
    root = xp.max(xp.where(falls, roots, roots[..., -1:]))
    left = m - a * root
    above = left > 0
    rest = xp.sum(xp.where(above, left, 0.0), [-1]) - b - c * root
    slope = c + xp.sum(xp.where(above, a, 0.0), [-1])
    return root + xp.where(slope > 0, rest / xp.where(slope > 0, slope, 1.0), 0.0)
