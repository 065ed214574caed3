"""What a plan penalizes: one weight and its regularizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

from torch import Tensor, nn

from penalize.errors import ConflictError, ModelError
from penalize.regularizers.base import Regularizer
from penalize.torch.model.bindings import Binding
from penalize.torch.model.joined import Joined, check_joined

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
        """The targets that are parameters themselves, and not computed from others."""
        found = Lives(each for each in self if not each.binding.effective)
        return self if len(found) == len(self) else found

    @cached_property
    def joined(self) -> Lives:
        """The targets that span parameters, which can be set."""
        return Lives(each for each in self if joined_in(each) is not None)

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
    """The same targets, with what is known of them where it is."""
    return targets if isinstance(targets, Lives) else Lives(targets)


def joined_in(target: Target | Live) -> Joined | None:
    """The matrix of what is set in the parameters that a target spans; None where it spans none."""
    binding = target.binding
    return binding if isinstance(binding, Joined) and binding.can_be_set else None


def weight_in(target: Target | Live, tensors: Sequence[Tensor]) -> Tensor:
    """What is laid out as the parameters behind a target are, as its weight is."""
    joined = joined_in(target)
    return tensors[0] if joined is None else joined.joined(tensors)


def parts_of(
    target: Target | Live, weight: Any, into: Sequence[Tensor], factors: Sequence[Any] = (1.0,)
) -> list[Any]:
    """What is laid out as the weight of a target, as the parameters behind it are.

    Args:
        target: what is penalized.
        weight: such a weight.
        into: what has the elements that are not the target's.
        factors: by which the parts are multiplied, one for each or one for all.
    """
    joined = joined_in(target)
    if joined is not None:
        return joined.apart(weight, into, factors if len(factors) == len(into) else None)
    (factor,) = factors
    return [weight if type(factor) is float and factor == 1 else factor * weight]


def set_in(target: Target | Live, tensors: Sequence[Tensor], weight: Tensor) -> None:
    """Write a weight of a target back, where it is a copy: see :func:`weight_in`."""
    joined = joined_in(target)
    if joined is not None:
        for x, part in zip(tensors, joined.apart(weight, tensors), strict=True):
            x.copy_(part)


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
        ModelError: one of them is in a group that spans parameters, or a part of such a group is
            frozen.
    """
    # By the parameters themselves: their ids are nothing to a compiler.
    first: dict[nn.Parameter, Target | Live] = {}
    again: set[str] = set()
    targets = list(targets)
    if any(isinstance(target.binding, Joined) for target in targets):
        check_joined(targets)
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
