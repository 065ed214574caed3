"""Groups and their norms where the step differs from element to element.

Under the diagonal metric of an adaptive optimizer, with c_i the step of an element times the weight
of its group's norm, each group goes to

    argmin_u Σ (u_i − w_i)²/(2c_i) + ‖u‖:    u_i = w_i·r/(r + c_i), where r = ‖u‖.

So r is the root of F(r) = Σ w_i²/(r + c_i)² = 1, or 0 where F(0) ≤ 1: one number per group. As in a
trust region (Moré and Sorensen, Computing a trust region step, 1983) it is found by Newton's method
for 1/√F = 1. 1/√F is a power mean of linear functions, so it is concave and grows with r: wherever
F > 1, Newton's step goes up and never beyond the root.
"""

from __future__ import annotations

from collections.abc import Callable

from penalize.backends import Array, Backend, implicit
from penalize.regularizers.elementwise import soft_threshold
from penalize.regularizers.grouping import Grouping
from penalize.regularizers.levels import at_least

_BISECTIONS, _NEWTON_STEPS = 7, 6
# Where the steps of a group differ by orders of magnitude, Newton's method alone creeps: over
# groups of 1 to 3000 elements whose weights and steps lie anywhere from 1e-8 to 1e8, drawn at
# random and then driven to the worst case, it needs up to 32 steps. A bisection of the exponent
# halves the orders of magnitude between the bounds. After a step from the lower bound, 5 bisections
# and 7 steps, or 6 and 6, leave |F − 1| at a few rounding errors, in float32 and float64; one more
# bisection is in reserve. The number is fixed: to ask whether it has converged would wait for the
# device, and could not be traced. Where a compiled loop can ask, steps go first (see ``_root``).
_BISECT = (False,) + (True,) * _BISECTIONS + (False,) * _NEWTON_STEPS


def shrink_groups(w: Array, c: Array, groups: Grouping, xp: Backend) -> Array:
    """argmin_u Σ (u_i − w_i)²/(2c_i) + Σ_g ‖u_g‖; an element whose c is 0 stays as it is."""
    size = xp.abs(w)
    r = _norms(size, xp.where(size <= 0, 1.0, c), groups, xp)
    stays = c <= 0
    c = xp.where(stays, 1.0, c)  # r + c is never 0
    return w * xp.where(stays, 1.0, r / (r + c))


def cap_groups(w: Array, steps: Array, limit: float, groups: Grouping, xp: Backend) -> Array:
    """argmin_u Σ (u_i − w_i)²/(2s_i) where every ‖u_g‖ ≤ limit.

    u_i = w_i/(1 + ν·s_i), where Σ_g u_i² = limit², or ν = 0. The multiplier (w − u)/s is the prox
    of limit·‖·‖ at w/s in the metric of the 1/s_i (Moreau), so its norm, ν·limit, is what is found
    here. Only the ratios of the steps within a group count. Where one is 0, the element moves only
    if those of step 0 alone are beyond the limit.
    """
    if not limit:
        return 0.0 * w
    size = xp.abs(w)
    s = ratios(w, steps, groups, xp)
    c = limit / s
    return w * (c / (_norms(size / s, xp.where(size <= 0, 1.0, c), groups, xp) + c))


def ratios(w: Array, steps: Array, groups: Grouping, xp: Backend) -> Array:
    """The steps as parts of their sum over a group; for 0, what is small beyond all rounding."""
    whole = groups.spread(groups.sum(steps, xp), w, xp)
    none = whole <= 0
    s = xp.where(none, 1.0, steps / xp.where(none, 1.0, whole))
    return at_least(xp.eps(w) ** 3, s, xp)


def _norms(size: Array, c: Array, groups: Grouping, xp: Backend) -> Array:
    """‖u_g‖ of :func:`shrink_groups`, at each element, for |w|.

    Only ratios are squared, so that nothing overflows or vanishes that the result needs.
    """
    free_size, free_c = size, c
    size, c = xp.stop(size), xp.stop(c)
    highest = groups.sum(size, xp)
    unit = groups.spread(highest, size, xp)
    # |u_i| ≤ r, so |w_i| ≤ |u_i| + c_i: r is at least the norm of the soft-thresholded group, which
    # is at least its sum over √|g|. Where that is 0 the root may be 0, too.
    low = groups.sum(soft_threshold(size, c, xp), xp) / groups.root_sizes(size, xp)

    inverse = getattr(xp, "inverse", None)  # of a backend that waits for divisions

    def closer(r: Array, low: Array, high: Array) -> tuple[Array, Array]:
        reach = groups.spread(r, size, xp) + c
        if inverse is None:
            ratio, near = size / reach, unit / reach
        else:
            over = inverse(reach)
            ratio, near = size * over, unit * over
        squares = ratio * ratio
        f = groups.sum(squares, xp)
        short = f > 1
        slope = xp.where(short, groups.sum(squares * near, xp), 1.0)
        grown = r + highest * (f * (xp.sqrt(f) - 1) / slope)
        return xp.where(short, grown, low), xp.where(short, high, r)

    def change(size: Array, c: Array, low: Array, highest: Array) -> Array:
        """What moves the root: F over −F′."""
        reach = groups.spread(low, size, xp) + c
        ratio = size / reach
        unit = groups.spread(highest, size, xp)
        steep = xp.stop(groups.sum(ratio * (ratio * (unit / reach)), xp))
        moves = low > 0
        rate = highest / (2 * xp.where(moves, steep, 1.0))
        return xp.where(moves, groups.sum(ratio * ratio, xp) * rate, 0.0)

    low = _root(closer, low, highest, xp)
    # Its derivative is not that of what has been done to find it.
    return groups.spread(implicit(low, change, (free_size, free_c, low, highest), xp), size, xp)


def _root(
    closer: Callable[[Array, Array, Array], tuple[Array, Array]],
    low: Array,
    high: Array,
    xp: Backend,
) -> Array:
    """The lower bound of each root, when it has moved as far as it goes.

    ``closer`` takes a guess and two bounds, and gives better bounds. A backend whose loops can ask
    how far a step went has a function for this, which begins with Newton's steps and bisects only
    where they creep: of Adam's groups, nearly all need two or three.
    """
    own = getattr(xp, "settled", None)
    if own is not None:
        found: Array = own(closer, low, high)
        return found
    for bisect in _BISECT:
        low, high = closer(xp.sqrt(low) * xp.sqrt(high) if bisect else low, low, high)
    return low
