"""The half-space step: exact zeros under any optimizer, on mini-batches.

Around the optimizer's own update of a weight w, with the gradient g of the data:

- Before it, ĝ is the running average of g, and h = ĝ + the gradient of all of Ω that is smooth.
  Where w is 0 and a kink of Ω holds it, the optimizer is given g̃, the element of h + ∂Ω(0) of least
  norm (:mod:`penalize.regularizers.least_norm`), and elsewhere g + ∇Ω(w), as in the loss.
- After it, what left its half-space is set to 0. The side of w is w, and −g̃ where that is 0. An
  element with a kink is set to 0 where w⁺ and its side do not have one sign, as in OWL-QN (Andrew
  and Gao, Scalable training of L1-regularized log-linear models, 2007), and then a group where
  ⟨w⁺_g, side_g⟩ ≤ 0 (Chen et al., Half-space proximal stochastic gradient method, 2020).
- A group that is not 0 hardly ever turns by so much in one step under noise, so it is also set to 0
  where the proximal step of the whole window of the average would set it to 0: where
  ‖soft(w⁺ − s·h, s·λ)_g‖ ≤ s·λ_g. What way s a gradient makes in the window is measured:
  s = Σ⟨−Δw, ĝ + ∇Ω(w)⟩/Σ⟨g + ∇Ω(w), ĝ + ∇Ω(w)⟩ per step, with sums over the elements that are not
  0 and the same window, times its steps. It is lr/(1 − momentum) per step for SGD.

The average is what tells zeros under noise, as in dual averaging (Lee and Wright, Manifold
identification in dual averaging for regularized stochastic online learning, 2012). It has the units
of the gradient, and is never multiplied by a learning rate. A kink of size 0, as at a step of a
schedule, does nothing at all. An element of g that is not finite is passed on, and leaves ĝ as it is.
"""

from __future__ import annotations

import math
import numbers
from typing import Any, NamedTuple

from penalize.backends import Array, Backend
from penalize.errors import ModeError
from penalize.regularizers.base import Regularizer
from penalize.regularizers.elementwise import soft_threshold
from penalize.regularizers.groups import norms_of
from penalize.regularizers.kinks import Kinks
from penalize.regularizers.least_norm import Zeros, least_norm, spread, zeros_of

AVERAGE = 0.999
"""How much of an average stays in a step, by default."""

SPARSE = 0.01
"""The share of zeros with which a weight counts as one that came sparse."""


class Memory(NamedTuple):
    """What is remembered of one weight. Sums over the steps are weighted by averageᵏ(1 − average)."""

    mean: Array
    """Σ g, of the weight's shape: its average is this over the mass."""

    mass: Array
    """Σ 1."""

    moved: Array
    """Σ ⟨−Δw, ĝ + ∇Ω(w)⟩."""

    pulled: Array
    """Σ ⟨g + ∇Ω(w), ĝ + ∇Ω(w)⟩."""

    held: Array
    """1 where the zeros that the weight came with stay until the average is full."""

    zeros: Array
    """Σ the number of zeros."""

    left: Array
    """Σ the number of zeros that are left."""


SCALARS = Memory._fields[1:]
"""All but the first are numbers."""


def check_average(average: object) -> float:
    """The average as a float. Raises :class:`ModeError` unless it is a number in [0, 1)."""
    if isinstance(average, numbers.Real) and not isinstance(average, bool) and 0 <= average < 1:
        return float(average)
    raise ModeError(
        f"average={average!r}",
        f"expected a number from 0 to below 1, how much of the average stays in a step: {AVERAGE} "
        "is one over about a thousand steps",
    )


def begun(w: Array, xp: Backend) -> Memory:
    """Nothing is remembered yet of a weight."""
    nothing = xp.full((), 0.0, w)
    share = _count(xp.abs(w) <= 0, w, xp) / max(math.prod(xp.shape(w)), 1)
    held = xp.where((share > SPARSE) & (share < 1), 1.0, nothing)
    return Memory(0.0 * xp.where(xp.abs(w) <= 0, w, nothing), *[nothing] * 3, held, *[nothing] * 2)


def before(
    regularizer: Regularizer, w: Array, g: Array, memory: Memory, average: float, xp: Backend
) -> tuple[Array, Memory]:
    """What the optimizer is to be given in place of the gradient, and what is then remembered.

    Args:
        regularizer: Ω, at this step.
        w: the weight, opened and wide.
        g: the gradient of the data.
        memory: from the last step.
        average: how much of an average stays in a step.
        xp: the array functions.
    """
    memory = noted(g, memory, average, xp)
    regularizer = regularizer._beside(w, xp)
    smooth = regularizer._gradient(w, xp)
    kinks = regularizer.kinks()
    zeros = zeros_of(w, kinks, xp)
    given = _where_zero(
        zeros, _held_back(smooth, zeros, kinks, memory, average, xp), g + smooth, xp
    )
    if zeros.groups is not None:
        along = _living(w, _mean(memory, xp) + smooth, zeros, xp)
        added = xp.sum(given * along)
        memory = memory._replace(pulled=_added(memory.pulled, added, average, xp))
    return given, memory


def after(
    regularizer: Regularizer, w: Array, new: Array, memory: Memory, average: float, xp: Backend
) -> tuple[Array, Memory]:
    """The weight after the update with exact zeros, and what is then remembered.

    Args:
        regularizer: Ω, at this step.
        w: the weight before the update.
        new: the weight after it.
        memory: as :func:`before` gave it in this step.
        average: how much of an average stays in a step.
        xp: the array functions.
    """
    regularizer = regularizer._beside(w, xp)
    kinks = regularizer.kinks()
    zeros = zeros_of(w, kinks, xp)
    smooth = regularizer._gradient(w, xp)
    side = _where_zero(zeros, -_held_back(smooth, zeros, kinks, memory, average, xp), w, xp)
    found = new
    if zeros.elements is not None:
        gone = ((new >= 0) & (side <= 0)) | ((new <= 0) & (side >= 0))  # a NaN stays
        gone = gone if isinstance(kinks.element, numbers.Real) else gone & (kinks.element > 0)
        found = xp.where(gone, 0.0, new)
    if zeros.groups is not None:
        along = _living(w, _mean(memory, xp) + smooth, zeros, xp)
        moved = xp.sum((w - new) * along)
        memory = memory._replace(moved=_added(memory.moved, moved, average, xp))
        gone = _gone(w, side, found, smooth, zeros, kinks, memory, average, xp)
        found = xp.where(gone, 0.0, found)
    return found, _counted(w, found, zeros, memory, average, xp)


def stay(
    regularizer: Regularizer, w: Array, new: Array, memory: Memory, average: float, xp: Backend
) -> tuple[Array, Memory]:
    """As :func:`after`, where the update made the zeros itself: those stay that are held.

    The memory is what :func:`noted` gave in this step.
    """
    regularizer = regularizer._beside(w, xp)
    kinks = regularizer.kinks()
    zeros = zeros_of(w, kinks, xp)
    pull = _held_back(regularizer._gradient(w, xp), zeros, kinks, memory, average, xp)
    found = _where_zero(zeros, xp.where(xp.abs(pull) <= 0, 0.0, new), new, xp)
    return found, _counted(w, found, zeros, memory, average, xp)


def share_left(memory: Memory, average: float, xp: Backend) -> Array:
    """The share of the zeros that were left in the last 1/(1 − average) steps."""
    none = memory.zeros <= 0
    share = memory.left * memory.mass / (1 - average) / xp.where(none, 1.0, memory.zeros)
    return xp.where(none, 0.0, share)


# --- the averages -----------------------------------------------------------------------------


def noted(g: Array, memory: Memory, average: float, xp: Backend) -> Memory:
    """What is remembered with one more gradient of the data in the average."""
    fine = xp.abs(g) < math.inf
    seen = xp.where(fine, g, _mean(memory, xp))
    mean = average * memory.mean + (1 - average) * seen
    return memory._replace(mean=mean, mass=average * memory.mass + (1 - average))


def _mean(memory: Memory, xp: Backend) -> Array:
    """ĝ; 0 before the first step."""
    return memory.mean / xp.where(memory.mass <= 0, 1.0, memory.mass)


def _added(total: Array, new: Array, average: float, xp: Backend) -> Array:
    return xp.where(xp.abs(new) < math.inf, average * total + (1 - average) * new, total)


def _living(w: Array, along: Array, zeros: Zeros, xp: Backend) -> Array:
    """What is along, and 0 where a weight is 0: there the optimizer's steps are not its own."""
    return xp.where(xp.abs(w) <= 0, 0.0, along)


# --- zeros ------------------------------------------------------------------------------------


def _where_zero(zeros: Zeros, a: Array, b: Array, xp: Backend) -> Array:
    for where in (zeros.elements, zeros.groups):
        if where is not None:
            b = xp.where(where, a, b)
    return b


def _held_back(
    smooth: Array, zeros: Zeros, kinks: Kinks, memory: Memory, average: float, xp: Backend
) -> Array:
    """g̃ where there are zeros. The gradient of Ω there is that of what is smooth."""
    left = least_norm(_mean(memory, xp) + smooth, zeros, kinks, xp)
    full = 1 - average ** (1 / (1 - average))
    stays = (memory.held > 0) & (memory.mass < full)
    return xp.where(stays, 0.0, left)


def _gone(
    w: Array,
    side: Array,
    new: Array,
    smooth: Array,
    zeros: Zeros,
    kinks: Kinks,
    memory: Memory,
    average: float,
    xp: Backend,
) -> Array:
    """Whether the group of an element is to be 0 now."""
    groups, size = kinks.sizes(w, xp)
    inner = groups.sum(new * norms_of(side, groups, xp).parts, xp)
    pulls = (memory.pulled > 0) & (memory.moved > 0)
    rate = xp.where(pulls, memory.moved, 0.0) / xp.where(pulls, memory.pulled, 1.0)
    way = rate * memory.mass / (1 - average)
    norms = norms_of(w, groups, xp)
    kink = norms.parts * groups.spread(size / norms.lengths, w, xp)
    element = 0.0
    if zeros.elements is not None:
        element = kinks.element
        kink = kink + element * xp.sign(w)
    moved = soft_threshold(new - way * (_mean(memory, xp) + smooth - kink), way * element, xp)
    reached = (norms_of(moved, groups, xp).each <= way * size) & (way > 0) & ~norms.zero
    gone = ((inner <= 0) | reached) & (size > 0)
    return spread(gone, groups, w, xp)


# --- what explain() tells ---------------------------------------------------------------------


def _count(which: Array, w: Array, xp: Backend) -> Array:
    return xp.sum(xp.where(which, xp.full((), 1.0, w), xp.full((), 0.0, w)))


def _counted(
    w: Array, new: Array, zeros: Zeros, memory: Memory, average: float, xp: Backend
) -> Memory:
    held = _where_zero(zeros, xp.full((), 1.0, w), 0.0 * w, xp) > 0
    known = _count(held, w, xp), _count(held & (xp.abs(new) > 0), w, xp)
    both = (memory.zeros, memory.left)
    zeros_, left = (average * a + (1 - average) * b for a, b in zip(both, known, strict=True))
    return memory._replace(zeros=zeros_, left=left)
