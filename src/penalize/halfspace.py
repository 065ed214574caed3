"""The half-space step: exact zeros under any optimizer, on mini-batches.

Around the optimizer's own update of a weight w, with the gradient g of the data:

- Before it, ĝ is the running average of g, and h is ĝ + the gradient of all of Ω that is smooth.
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
  0, times the steps of the window. It is lr/(1 − momentum) per step for SGD. The sums are over the
  window and over the recent steps, and the lesser s counts: steps of a rate that has fallen since
  outweigh the later ones in the window, and what is recent is noisy. Where s is too small, zeros
  come later; where it is too large, groups are lost.

The average is what tells zeros under noise, as in dual averaging (Lee and Wright, Manifold
identification in dual averaging for regularized stochastic online learning, 2012). It has the units
of the gradient, and is never multiplied by a learning rate. A kink of size 0, as at a step of a
schedule, does nothing at all. An element of g that is not finite is passed on, and leaves ĝ as it
is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from penalize.backends import Array, Backend
from penalize.errors import ModeError, NoKinkError
from penalize.regularizers.base import Regularizer, as_number
from penalize.regularizers.elementwise import soft_threshold
from penalize.regularizers.groups import at_scale, norms_of
from penalize.regularizers.kinks import Kinks
from penalize.regularizers.least_norm import Zeros, least_norm, spread, zeros_of

AVERAGE = 0.999
"""How much of an average stays in a step, by default."""

SPARSE = 0.01
"""The share of zeros with which a weight counts as one that came sparse."""


class Memory(NamedTuple):
    """What is remembered of one weight. Sums are over steps, weighted by averageᵏ(1 − average)."""

    mean: Array
    """Σ g, of the weight's shape: its average is this over the mass."""

    mass: Array
    """Σ 1."""

    moved: Array
    """Σ ⟨−Δw, ĝ + ∇Ω(w)⟩."""

    pulled: Array
    """Σ ⟨g + ∇Ω(w), ĝ + ∇Ω(w)⟩."""

    recently_moved: Array
    """As moved, weighted by :func:`recent` in place of the average."""

    recently_pulled: Array
    """As pulled; the same."""

    held: Array
    """1 where the zeros that the weight came with stay until the average is full."""

    zeros: Array
    """Σ the number of zeros; of a shard, of those in it."""

    left: Array
    """Σ the number of zeros that are left; the same."""


SCALARS = Memory._fields[1:]
"""All but the first are numbers."""


def check_average(average: object) -> float:
    """The average as a float. Raises :class:`ModeError` unless it is a number in [0, 1)."""
    number = as_number(average)
    if 0 <= number < 1:
        return number
    raise ModeError(
        f"average={average!r}",
        f"expected a number from 0 to below 1, how much of the average stays in a step: {AVERAGE} "
        "is one over about a thousand steps",
    )


def check_some_kinks(penalties: Mapping[str, Regularizer]) -> None:
    """Raise :class:`NoKinkError` unless all kinks at 0 are of known size, and there is one.

    A penalty without any acts as in mode ``"gradient"``, beside one that has some.

    Args:
        penalties: by the name of their parameter.
    """
    none = [not has_kinks(name, penalty) for name, penalty in penalties.items()]
    if penalties and all(none):
        name, penalty = next(iter(penalties.items()))
        penalty.check_kinks(repr(name))


def has_kinks(name: str, penalty: Regularizer) -> bool:
    """Whether a penalty makes zeros. Raises :class:`NoKinkError` where that is not known."""
    try:
        return not penalty.kinks().none
    except NoKinkError as error:
        raise NoKinkError(error.regularizer, error.reason, repr(name)) from None


def begun(w: Array, xp: Backend) -> Memory:
    """What is remembered of a weight before the first step."""
    nothing = xp.full((), 0.0, w)
    share = xp.sum(_ones(xp.abs(w) <= 0, w, xp)) / max(math.prod(xp.shape(w)), 1)
    held = xp.where((share > SPARSE) & (share < 1), 1.0, nothing)
    mean = xp.full(tuple(w.shape), 0.0, w)
    memory = Memory(mean, *[nothing] * len(SCALARS))
    return memory._replace(held=held)


def recent(average: float) -> float:
    """How much stays of what is recent: √n steps count, where n are in the average."""
    return 1 - math.sqrt(1 - average)


def noted(g: Array, memory: Memory, average: float, xp: Backend) -> Memory:
    """What is remembered with one more gradient of the data in the average."""
    seen = xp.where(xp.abs(g) < math.inf, g, _mean(memory, xp))
    mean = average * memory.mean + (1 - average) * seen
    return memory._replace(mean=mean, mass=average * memory.mass + (1 - average))


def share_left(memory: Memory, average: float, xp: Backend) -> Array:
    """The share of the zeros that were left in the last 1/(1 − average) steps."""
    none = memory.zeros <= 0
    share = memory.left * memory.mass / (1 - average) / xp.where(none, 1.0, memory.zeros)
    return xp.where(none, 0.0, share)


@dataclass(frozen=True)
class HalfSpace:
    """The half-space step of one weight.

    Args:
        penalty: Ω, at this step.
        w: the weight before the update, opened and wide.
        average: how much of an average stays in a step.
        xp: the array functions.
    """

    penalty: Regularizer
    w: Array
    average: float
    xp: Backend

    def before(self, g: Array, memory: Memory) -> tuple[Array, Memory]:
        """What the optimizer is to be given, and what is then remembered.

        Args:
            g: the gradient of the data.
            memory: of the last step.
        """
        memory = noted(g, memory, self.average, self.xp)
        slope = self.slope()
        given = self.given(g, slope, memory)
        if self.zeros.groups is not None:
            memory = added(
                "pulled", self.along(given, slope, memory), memory, self.average, self.xp
            )
        return given, memory

    def after(self, new: Array, memory: Memory) -> tuple[Array, Memory]:
        """The weight after the update with its zeros, and what is then remembered.

        Args:
            new: the weight after the update.
            memory: as :meth:`before` gave it.
        """
        slope = self.slope()
        if self.zeros.groups is not None:
            moved = self.along(self.w - new, slope, memory)
            memory = added("moved", moved, memory, self.average, self.xp)
        found = self.found(new, slope, memory)
        return found, self._counted(found, memory)

    def stay(self, new: Array, memory: Memory) -> tuple[Array, Memory]:
        """As :meth:`after`, where the update made the zeros itself: those stay that are held.

        Args:
            new: the weight after the update.
            memory: as :func:`noted` gave it in this step.
        """
        pull = self._pull(self.slope(), memory)
        held = self.xp.where(self.xp.abs(pull) <= 0, 0.0, new)
        found = self._at_zeros(held, new)
        return found, self._counted(found, memory)

    # --- the parts of it --------------------------------------------------------------------

    @cached_property
    def _own(self) -> Regularizer:
        return self.penalty._beside(self.w, self.xp)

    @cached_property
    def kinks(self) -> Kinks:
        """The kinks of Ω."""
        return self._own.kinks()

    @cached_property
    def zeros(self) -> Zeros:
        """The zeros of w that a kink holds."""
        return zeros_of(self.w, self.kinks, self.xp)

    def slope(self) -> Array:
        """∇Ω(w): at zeros, that of what is smooth. (As large as the weight, so it is not kept.)"""
        return self._own._gradient(self.w, self.xp)

    def given(self, g: Array, slope: Array, memory: Memory) -> Array:
        """What the optimizer is to be given; g is noted in the memory."""
        return self._at_zeros(self._pull(slope, memory), g + slope)

    def side(self, slope: Array, memory: Memory) -> Array:
        """The side of w: w, and −g̃ where that is 0."""
        return self._at_zeros(-self._pull(slope, memory), self.w)

    def held(self) -> Array:
        """Whether an element is 0 and a kink holds it."""
        return self._at_zeros(self.xp.full((), 1.0, self.w), 0.0 * self.xp.sign(self.w)) > 0

    def along(self, x: Array, slope: Array, memory: Memory) -> Array:
        """⟨x, ĝ + ∇Ω(w)⟩ over what is not 0: elsewhere a gradient is not what moves a weight."""
        along = _mean(memory, self.xp) + slope
        return self.xp.sum(x * self.xp.where(self.xp.abs(self.w) <= 0, 0.0, along))

    def found(self, new: Array, slope: Array, memory: Memory) -> Array:
        """The weight after the update, 0 where it left its half-space."""
        side = self.side(slope, memory)
        if self.zeros.elements is not None:
            lost = _and_on(crossed(new, side <= 0, side >= 0), self.kinks.element)
            new = self.xp.where(lost, 0.0, new)
        if self.zeros.groups is not None:
            new = self.xp.where(self._gone(new, side, slope, memory), 0.0, new)
        return new

    def _at_zeros(self, there: Array, elsewhere: Array) -> Array:
        for zeros in (self.zeros.elements, self.zeros.groups):
            if zeros is not None:
                elsewhere = self.xp.where(zeros, there, elsewhere)
        return elsewhere

    def _pull(self, slope: Array, memory: Memory) -> Array:
        """g̃, at the zeros."""
        pull = least_norm(_mean(memory, self.xp) + slope, self.zeros, self.kinks, self.xp)
        full = 1 - self.average ** (1 / (1 - self.average) - 0.5)  # half a step for rounding
        stays = (memory.held > 0) & (memory.mass < full)
        return self.xp.where(stays, 0.0, pull)

    def _gone(self, new: Array, side: Array, slope: Array, memory: Memory) -> Array:
        """Whether the group of each element is to be 0 now."""
        xp, kinks = self.xp, self.kinks
        groups, size = kinks.sizes(self.w, xp)
        turned = groups.sum(new * at_scale(side, groups, xp)[1], xp) <= 0
        norms = norms_of(self.w, groups, xp)
        kink = norms.parts * groups.spread(size / norms.lengths, self.w, xp)
        element = 0.0 if self.zeros.elements is None else kinks.element
        smooth = slope - kink - element * xp.sign(self.w)
        way = self._way(memory)
        moved = new - way * (_mean(memory, xp) + smooth)
        left = norms_of(soft_threshold(moved, way * element, xp), groups, xp)
        reached = (left.each <= way * size) & (way > 0) & (norms.each > 0)
        return spread(_and_on(turned | reached, size), groups, self.w, xp)

    def _way(self, memory: Memory) -> Array:
        """How far a gradient moves a weight within the window of the average, over the gradient."""
        rate = self._rate(memory.moved, memory.pulled)
        recently = self._rate(memory.recently_moved, memory.recently_pulled)
        least = self.xp.where(recently < rate, recently, rate)
        return least * memory.mass / (1 - self.average)

    def _rate(self, moved: Array, pulled: Array) -> Array:
        known = (pulled > 0) & (moved > 0)
        return self.xp.where(known, moved, 0.0) / self.xp.where(known, pulled, 1.0)

    # --- what is told -----------------------------------------------------------------------

    def _counted(self, new: Array, memory: Memory) -> Memory:
        held = self.held()
        left = self._here(held & (self.xp.abs(new) > 0))
        return counted(self._here(held), left, memory, self.average)

    def _here(self, which: Array) -> Array:
        """How many there are: of a shard, in it."""
        return self.xp.total(_ones(which, self.w, self.xp))


def crossed(new: Array, below: Array, above: Array) -> Array:
    """Whether the signs of w⁺ and of its side are not one; it is told where its side is ≤ 0, and
    where ≥ 0. A NaN stays.
    """
    return ((new >= 0) & below) | ((new <= 0) & above)


def added(name: str, new: Array, memory: Memory, average: float, xp: Backend) -> Memory:
    """What is remembered with one more ``"moved"`` or ``"pulled"``, unless it is not finite."""
    found: dict[str, Array] = {}
    for field, stays in ((name, average), (f"recently_{name}", recent(average))):
        total = getattr(memory, field)
        both = stays * total + (1 - stays) * new
        found[field] = xp.where(xp.abs(new) < math.inf, both, total)
    return memory._replace(**found)


def counted(zeros: Array, left: Array, memory: Memory, average: float) -> Memory:
    """What is remembered with the zeros of one more step, and those that it left."""
    a = average
    return memory._replace(
        zeros=a * memory.zeros + (1 - a) * zeros, left=a * memory.left + (1 - a) * left
    )


def _mean(memory: Memory, xp: Backend) -> Array:
    """ĝ; 0 before the first step."""
    return memory.mean * (1 / xp.where(memory.mass <= 0, 1.0, memory.mass))


def _and_on(condition: Array, size: Any) -> Array:
    """A condition, where a kink is above 0."""
    return condition if type(size) is float else condition & (size > 0)  # it was on


def _ones(which: Array, w: Array, xp: Backend) -> Array:
    return xp.where(which, xp.full((), 1.0, w), xp.full((), 0.0, w))
