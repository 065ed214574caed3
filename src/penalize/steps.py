"""The proximal step that an optimizer really took, as the wings read it from their optimizers.

Proximal gradient descent reaches the penalized minimiser only if the proximal step is the factor
with which a constant gradient would have entered the update. For plain SGD that is the learning
rate; momentum multiplies it, and an adaptive method has one per element: its learning rate over the
denominator of its update (Yun, Lozano and Yang, Adaptive proximal gradient methods for structured
neural networks, 2021). Each wing has a table of the optimizers that it knows, and reads their state
after the update. Optimizers that are not in the table are refused, never guessed.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Step(NamedTuple):
    """The step of one parameter: factor, over a denominator per element where there is one."""

    factor: Any
    """A number, or an array without axes."""

    denominator: Any = None


SLACK = 10.0
"""An adaptive step gets a floor of |∇Ω(w)| / SLACK (``Regularizer.pull``) under its denominator.

At a minimiser that is not zero the data gradient is as large as the penalty's, and so is the
denominator: the floor leaves it alone. But an element whose data gradient has been zero so far (a
dead unit, a branch not used yet) has a denominator of eps, and one such step would erase it, where
the optimizer itself moves a weight by no more than about its learning rate. With the floor the
penalty moves it by at most about SLACK times as much.
"""
