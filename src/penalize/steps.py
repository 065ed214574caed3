"""The proximal step that an optimizer really took, by the formulas of the known optimizers.

Proximal gradient descent reaches the penalized minimiser only if the proximal step is the factor
with which a constant gradient would have entered the update. For plain SGD that is the learning
rate; momentum multiplies it, and an adaptive method has one per element: its learning rate over the
denominator of its update (Yun, Lozano and Yang, Adaptive proximal gradient methods for structured
neural networks, 2021). The formulas are here. Each wing has a table of the optimizers that it
knows, and says where their rate, count and moments are, as they are after the update. Optimizers
that are not in its table are refused, never guessed.

Rates, counts and decays are numbers, or arrays without axes where a framework keeps them so. With
g a constant gradient, ``second`` is what g² has made of the second moment.
"""

from __future__ import annotations

import math
import numbers
from typing import Any, NamedTuple

from penalize.backends import Array, Backend

Scalar = Any
"""A number, or an array without axes."""


class Step(NamedTuple):
    """The step of one parameter: factor, over a denominator per element where there is one."""

    factor: Scalar
    denominator: Array | None = None


class Taken(NamedTuple):
    """A step as an optimizer keeps it: factor/(scale·√(second + inside) + offset).

    The factor alone, where there is no second moment.
    """

    factor: Scalar
    second: Array | None = None
    """The second moment that the optimizer keeps, or its like; None where it keeps none."""

    scale: Scalar = 1.0
    offset: Scalar = 0.0
    is_squared: bool = True
    """Whether the root of ``second`` is taken."""

    inside: Scalar = 0.0

    def step(self, xp: Backend) -> Step:
        """With its denominator worked out."""
        if self.second is None:
            return Step(self.factor)
        root = self.second
        if self.is_squared:
            root = xp.sqrt(root if _is(self.inside, 0) else root + self.inside)
        root = root if _is(self.scale, 1) else root * self.scale
        return Step(self.factor, root if _is(self.offset, 0) else root + self.offset)


def _is(held: Scalar, number: float) -> bool:
    return isinstance(held, numbers.Real) and held == number


def _product(x: Scalar, y: Scalar) -> Scalar:
    return 0.0 if _is(x, 0) else x * y


# --- the bound ------------------------------------------------------------------------------

SLACK = 10.0
"""An adaptive step gets a floor of |∇Ω(w)| / SLACK (``Regularizer.pull``) under its denominator.

At a minimiser that is not zero the data gradient is as large as the penalty's, and so is the
denominator: the floor leaves it alone. But an element whose data gradient has been zero so far (a
dead unit, a branch not used yet) has a denominator of eps, and one such step would erase it, where
the optimizer itself moves a weight by no more than about its learning rate. With the floor the
penalty moves it by at most about SLACK times as much.
"""


def bounded(step: Step, pull: Array | None, xp: Backend) -> Any:
    """The step as a number or array, with a floor of pull / SLACK under the denominator.

    Args:
        step: what the optimizer took.
        pull: how hard Ω pulls at each element, ≥ 0; it is not looked at where the step has no
            denominator.
        xp: the array functions.
    """
    if step.denominator is None:
        return step.factor
    assert pull is not None
    floored = xp.maximum(step.denominator, pull / SLACK)
    return step.factor / xp.clip(floored, xp.tiny(floored), math.inf)


# --- the formulas ---------------------------------------------------------------------------


def sgd(rate: Scalar, momentum: Scalar = 0.0, dampening: Scalar = 0.0) -> Taken:
    """SGD, with Polyak's momentum or Nesterov's: rate·(1 − dampening)/(1 − momentum).

    A constant gradient enters a sum of momentum so many times; with Nesterov's, 1 + μ/(1 − μ) times
    in all, which is the same. Without momentum there is no sum that could be dampened.
    """
    if _is(momentum, 0):
        return Taken(rate)
    return Taken(rate * (1 - dampening) / (1 - momentum))


def adam(
    rate: Scalar,
    second: Array | None,
    *,
    correction: Scalar = 1.0,
    eps: Scalar = 0.0,
    inside: Scalar = 0.0,
    eps_is_scaled: bool = False,
) -> Taken:
    """Adam, AdamW and AMSGrad: rate over √(v/(1 − β₂ᵗ) + inside) + eps.

    Args:
        rate: the learning rate.
        second: v, the average of squares, or AMSGrad's largest so far.
        correction: 1 − β₂ᵗ for update t; 1 where v is corrected already.
        eps, inside: what is added to the root, and under it.
        eps_is_scaled: whether eps is added to √v, before the correction.
    """
    scale = over_root(correction)
    offset = _product(eps, scale) if eps_is_scaled else eps
    return Taken(rate, second, scale, offset, inside=_product(inside, correction))


def nadam(
    rate: Scalar,
    second: Array | None,
    *,
    betas: tuple[Scalar, Scalar],
    count: Scalar,
    momenta: tuple[Scalar, Scalar],
    product: Scalar,
    eps: Scalar = 0.0,
    inside: Scalar = 0.0,
) -> Taken:
    """NAdam: Adam's step times (1 − μ)/(1 − P) + μ′(1 − β₁ᵗ)/(1 − P·μ′).

    Args:
        momenta: μ of this update and μ′ of the next; see :func:`nadam_momentum`. Where β₁ itself
            is both, this is Adam with Nesterov's momentum.
        product: P, the product of all μ up to this update.
        betas, count: β₁ and β₂; t, with this update.
        rate, second, eps, inside: as those of :func:`adam`.
    """
    now, after = momenta
    # A constant gradient g has the first moment (1 − β₁ᵗ)·g.
    from_momentum = after / (1 - product * after) * (1 - betas[0] ** count)
    factor = rate * ((1 - now) / (1 - product) + from_momentum)
    correction = 1 - betas[1] ** count
    return adam(factor, second, correction=correction, eps=eps, inside=inside)


def nadam_momentum(beta: Scalar, count: Scalar, decay: Scalar = 1.0) -> tuple[Scalar, Scalar]:
    """NAdam's momentum of an update and of the next: β₁·(1 − ½·0.96^(decay·t))."""
    return (
        beta * (1 - 0.5 * 0.96 ** (count * decay)),
        beta * (1 - 0.5 * 0.96 ** ((count + 1) * decay)),
    )


def radam(
    rate: Scalar,
    second: Array,
    *,
    decay: Scalar,
    count: Scalar,
    eps: Scalar = 0.0,
    xp: Backend,
) -> Taken:
    """RAdam: Adam's step times its rectification; the rate alone while that is not defined.

    Args:
        eps: what is added to √v, before the correction.
        xp: the array functions, for a count that is an array.
        decay, count: β₂; t, with this update.
        rate, second: as those of :func:`adam`.
    """
    correction = 1 - decay**count
    longest = 2 / (1 - decay) - 1
    length = longest - 2 * count * decay**count / correction
    rectified = (length - 4) * (length - 2) * longest
    rectified = rectified / ((longest - 4) * (longest - 2) * length)
    adaptive = length > 5
    if adaptive is False:
        return Taken(rate)  # in its first steps it takes those of momentum alone

    def choose(yes: Scalar, no: Scalar) -> Scalar:
        return yes if adaptive is True else xp.where(adaptive, yes, no)

    scale = over_root(correction)
    factor = rate * choose(abs(rectified) ** 0.5, 1.0)
    return Taken(factor, second, choose(scale, 0.0), choose(eps * scale, 1.0))


def adamax(rate: Scalar, norm: Array | None, *, eps: Scalar = 0.0) -> Taken:
    """Adamax: rate/(u + eps), where u is the weighted largest |g| so far."""
    return Taken(rate, norm, offset=eps, is_squared=False)


def adagrad(
    rate: Scalar,
    total: Array | None,
    *,
    count: Scalar = 1,
    rate_decay: Scalar = 0.0,
    eps: Scalar = 0.0,
    inside: Scalar = 0.0,
) -> Taken:
    """Adagrad: rate/(1 + (t − 1)·decay) over √(Σ g² + inside) + eps."""
    if not _is(rate_decay, 0):
        rate = rate / (1 + (count - 1) * rate_decay)
    return Taken(rate, total, offset=eps, inside=inside)


def rmsprop(
    rate: Scalar,
    second: Array | None,
    *,
    correction: Scalar = 1.0,
    momentum: Scalar = 0.0,
    eps: Scalar = 0.0,
    inside: Scalar = 0.0,
) -> Taken:
    """RMSprop: rate/(1 − momentum) over √(v + inside) + eps.

    Args:
        correction: 1 − ρᵗ, where v began with zero, for which RMSprop does not correct. The
            denominator is the corrected one, which compares with a gradient, and the factor undoes
            it.
        rate, second, momentum, eps, inside: see the formula.
    """
    scale = over_root(correction)
    factor = sgd(rate, momentum).factor * scale
    return Taken(factor, second, scale, _product(eps, scale), inside=inside)


def over_root(correction: Scalar) -> Scalar:
    """1/√correction; infinite before the first step, which a scaler has the optimizer skip."""
    return math.inf if _is(correction, 0) else correction**-0.5
