"""What a plan penalizes: one weight and its regularizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

from torch import nn

from penalize.errors import ConflictError, ModelError
from penalize.regularizers.base import Regularizer
from penalize.torch.model.bindings import Binding

T = TypeVar("T")


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


class Lives(tuple[Live, ...]):
    """The targets of a step, and what modes ask of all of them: looked up once, while steps go on
    with the same.
    """

    @cached_property
    def names(self) -> list[str]:
        return [each.name for each in self]

    @cached_property
    def regularizers(self) -> list[Regularizer]:
        return [each.regularizer for each in self]

    @cached_property
    def parameters(self) -> list[nn.Parameter]:
        """All that are behind them."""
        return [parameter for each in self for parameter in each.parameters]

    @cached_property
    def plain(self) -> Lives:
        """Those that are parameters themselves, and not computed from others."""
        found = Lives(each for each in self if not each.binding.effective)
        return self if len(found) == len(self) else found

    @cached_property
    def _held(self) -> list[Any]:
        return [None, None]

    def among(self, groups: Mapping[int, T]) -> list[T]:
        """What a mapping has for the id of each parameter behind them."""
        if self._held[0] is not groups:
            self._held[:] = groups, list(map(groups.__getitem__, map(id, self.parameters)))
        found: list[T] = self._held[1]
        return found


def lives(targets: Sequence[Live]) -> Lives:
    """These targets, with what is known of them where it is."""
    return targets if isinstance(targets, Lives) else Lives(targets)


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
