"""What a plan penalizes: one weight and its regularizer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch import nn

from penalize.errors import ConflictError, ModelError
from penalize.regularizers.base import Regularizer
from penalize.torch.model.bindings import Binding


@dataclass(frozen=True, slots=True)
class Target:
    """One weight and its regularizer."""

    name: str
    binding: Binding
    regularizer: Regularizer

    @property
    def parameters(self) -> tuple[nn.Parameter, ...]:
        """What is behind the weight, as it is now."""
        return self.binding.parameters()

    def at(self, step: Any) -> Target:
        """The same with its strength at a step of training."""
        regularizer = self.regularizer
        return replace(self, regularizer=regularizer.at(step)) if regularizer.scheduled else self


class Live(NamedTuple):
    """A target in one step: its strength at that step, and the parameters found behind it."""

    name: str
    binding: Binding
    regularizer: Regularizer
    parameters: tuple[nn.Parameter, ...]


def parameters_behind(binding: Binding) -> tuple[nn.Parameter, ...]:
    """The parameters of a weight; none if the model no longer has it."""
    try:
        return binding.parameters()
    except ModelError:
        return ()


def doubled(targets: Iterable[Target | Live]) -> frozenset[str]:
    """The names of weights that were tied to another one after they were planned.

    Raises:
        ConflictError: the two have different regularizers.
    """
    # By the parameters themselves: their ids are nothing to a compiler.
    first: dict[nn.Parameter, Target | Live] = {}
    again: set[str] = set()
    for target in targets:
        if target.binding.effective:
            continue  # its parameter is no weight: two may be computed from one
        (parameter,) = target.parameters
        other = first.setdefault(parameter, target)
        if other is target:
            continue
        if other.regularizer != target.regularizer:
            found = (f"{each.regularizer!r} of the plan" for each in (other, target))
            raise ConflictError([other.name, target.name], *found)
        again.add(target.name)
    return frozenset(again)
