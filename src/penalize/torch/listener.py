"""What hears of the steps of optimizers; the clock tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from penalize.torch.clock import OptimizerStep


class Listener:
    """Something that acts in steps, or looks at them. Each overrides what it needs."""

    def begins(self, step: OptimizerStep) -> None:
        """A step has begun."""

    def asked(self, step: OptimizerStep) -> None:
        """A closure is about to be evaluated."""

    def ready(self, step: OptimizerStep) -> None:
        """The gradients are ready; after each evaluation of a closure, if there is one."""

    def addition(self, step: OptimizerStep) -> Tensor | float:
        """What an optimizer that compares the values of its closure has to add to them."""
        return 0.0

    def ends(self, step: OptimizerStep) -> None:
        """The step is over."""

    def broken_off(self, step: OptimizerStep) -> None:
        """An earlier step of the same optimizer raised, so that it never ended."""
