"""One step of one optimizer: what is known of it while it runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from penalize.torch.model.targets import Live

Group = Mapping[str, Any]
"""One of an optimizer's param groups."""


def groups_of(optimizer: Optimizer) -> dict[int, Group]:
    """The param group of each parameter, by the parameter's id."""
    groups: dict[int, Group] = {}
    for group in optimizer.param_groups:
        groups.update(dict.fromkeys(map(id, group["params"]), group))
    return groups


def stepped_by(optimizer: Optimizer) -> Optimizer:
    """The optimizer itself, or the one that ZeroRedundancyOptimizer shards."""
    shards = any(kind.__name__ == "ZeroRedundancyOptimizer" for kind in type(optimizer).__mro__)
    inner: Optimizer = optimizer.optim if shards else optimizer  # type: ignore[attr-defined]
    return inner


class OptimizerStep:
    """One step of one optimizer, from its beginning to its end."""

    def __init__(
        self, optimizer: Optimizer, around: OptimizerStep | None, frame: FrameType | None
    ) -> None:
        self.optimizer = optimizer
        self.has_closure = False
        """Whether a closure computes the gradients within it, perhaps often."""

        self.groups = groups_of(optimizer)
        """The param group of each parameter, by the parameter's id."""

        self.around = around
        """The step of another optimizer that this one is a part of."""

        self.within: set[int] = set()
        """The ids of the parameters that optimizers within it have stepped."""

        self.acted: dict[object, Sequence[Live]] = {}
        """Whatever has applied penalties in it, and to what."""

        # What a fused optimizer is told by a GradScaler. Both stay on the device: nothing waits.
        self.scale: Tensor | None = getattr(optimizer, "grad_scale", None)
        """What the ``.grad`` that is about to be read is multiplied by; None for 1."""

        self.found_inf: Tensor | None = getattr(optimizer, "found_inf", None)
        """Over 0 where the step is to be skipped; None where it is not."""

        self.added: dict[int, object] = {}
        """What has added a penalty to the gradient of a parameter in it, by the parameter's id."""

        self.frame = frame
        """What called the hooks: while it is on the stack, the step is running."""

        self.calls = [frame]
        """The calls of ``step`` that it consists of: what called the hooks of each."""

    def __reduce__(self) -> Any:
        return type(None), ()  # a copy of an optimizer is in no step

    @property
    def depth(self) -> int:
        """How many calls of ``step`` it consists of now, less those that raised."""
        while self.calls and not is_on_the_stack(self.calls[-1]):
            self.calls.pop()
        return len(self.calls)

    @property
    def chain(self) -> Iterator[OptimizerStep]:
        """This step, and those that it is a part of."""
        step: OptimizerStep | None = self
        while step is not None:
            yield step
            step = step.around

    def assign(self, parameter: Tensor, value: Tensor) -> None:
        """parameter ← value, unless the optimizer is to skip this step."""
        if self.found_inf is not None:
            value = torch.where(self.found_inf.to(parameter.device) > 0, parameter, value)
        parameter.copy_(value)


def is_on_the_stack(wanted: FrameType | None) -> bool:
    """Whether a call is still running."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame is not wanted:
        frame = frame.f_back
    return frame is not None
