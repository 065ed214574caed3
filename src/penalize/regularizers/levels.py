"""The level to which a group is filled, or cut: the root of a piecewise linear function.

Projections onto a simplex and the proximal operators of the ℓ∞ norm and of a squared ℓ₁ norm all
ask for the ν with

    f(ν) = Σ_i a_i·(r_i − ν)₊ − b − c·ν = 0,    a_i ≥ 0, c ≥ 0,

one for each group. f is convex and falls. The sum over the k largest r_i without the (·)₊ is never
above it, so the root of each such line is never beyond that of f; and the line of the right k
touches f there. So ν is the largest of their roots (Held, Wolfe and Crowder, Validation of
subgradient optimization, 1974, for the simplex).
"""

from __future__ import annotations

from penalize.backends import Array, Backend


def level(r: Array, a: Array, b: float | Array, c: float, xp: Backend) -> Array:
    """ν for each row, as a column.

    Args:
        r: a matrix with a group in each row.
        a: the same; 0 for what only fills a row up.
        b: a number, or a column.
        c: a number.
        xp: the array functions.
    """
    order = xp.descending(r)
    r, a = xp.along(r, order), xp.along(a, order)
    weight = xp.cumsum(a) + c
    known = weight > 0
    roots = (xp.cumsum(a * r) - b) / xp.where(known, weight, 1.0)
    lowest = xp.where(known, roots, -float("inf"))
    return xp.max(lowest)
