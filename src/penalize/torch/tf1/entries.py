"""What stands in a collection: plain data that is read when somebody asks.

A variable is kept by its name, never by its tensor, so that an entry stays right when the tensor
is replaced or the whole store is copied. A penalty is kept as regularizer and weights, and computed
anew at each reading: there is no graph that would do it, and the graph of an earlier step is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from penalize.contrib import check_gradient
from penalize.errors import PenaltyError
from penalize.regularizers.base import Regularizer
from penalize.regularizers.place import Place
from penalize.torch.model.roles import axes_of
from penalize.torch.tf1.sameness import described, same


class Entry(Protocol):
    """One item of a collection of a store."""

    @property
    def name(self) -> str | None:
        """What a scope filter looks at; None for an item that no scope holds."""

    def read(self, store: nn.Module) -> Any:
        """The item as it is now."""

    def repeats(self, other: Entry) -> bool:
        """Whether this is what the other one is, only declared once more."""


@dataclass(frozen=True, eq=False)
class Value:
    """Anything at all, returned as it was given. Tensors that are equal may be two of them."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Value) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)

    @property
    def name(self) -> str | None:
        name = getattr(self.value, "name", None)
        return name if isinstance(name, str) else None

    def read(self, store: nn.Module) -> Any:
        return self.value

    def repeats(self, other: Entry) -> bool:
        return False


@dataclass(frozen=True)
class Variable:
    """A variable of the store."""

    name: str

    def read(self, store: nn.Module) -> Tensor:
        tensor: Tensor = getattr(store, self.name)
        return tensor

    def repeats(self, other: Entry) -> bool:
        return self == other


@dataclass(frozen=True)
class Penalty:
    """The penalty of some weights."""

    name: str
    regularizer: Any
    weights: tuple[Entry, ...]

    def read(self, store: nn.Module) -> Tensor:
        value = total(
            evaluate(self.regularizer, weight.read(store), store, weight.name)
            for weight in self.weights
        )
        _read_from[value] = self
        return value

    def repeats(self, other: Entry) -> bool:
        return (
            isinstance(other, Penalty)
            and self.name == other.name
            and same(self.regularizer, other.regularizer)
            and same(self.weights, other.weights)
        )


_read_from: MutableMapping[Tensor, Penalty] = WeakIdKeyDictionary()


def penalty_behind(value: Any) -> Penalty | None:
    """What a tensor was computed from, if it was read from a collection as a penalty."""
    return _read_from.get(value) if isinstance(value, Tensor) else None


def evaluate(regularizer: Any, weight: Any, store: nn.Module, name: str | None) -> Tensor | None:
    """The penalty of one weight now; None where the regularizer gives none.

    Raises:
        PenaltyError: the regularizer gives something that is no scalar.
        GroupsError: its groups do not fit the weight.
        NoGradientError: it is a constraint, or counts, and no loss can apply it.
    """
    check_gradient(regularizer, repr(name) if name else "")
    penalty = laid_out(regularizer, weight, store, name)(weight)
    if penalty is None:
        return None
    try:
        penalty = torch.as_tensor(penalty)
    except (TypeError, ValueError, RuntimeError) as error:
        raise PenaltyError(
            f"{described(regularizer)} returned {penalty!r} for {name or 'a weight'!r}", "a scalar"
        ) from error
    if penalty.ndim:
        raise PenaltyError(
            f"{described(regularizer)} returned a tensor of shape {tuple(penalty.shape)} for "
            f"{name or 'a weight'!r}",
            "a scalar",
        )
    return penalty


def laid_out(regularizer: Any, weight: Any, store: nn.Module, name: str | None) -> Any:
    """The regularizer with ``"outputs"`` and ``"inputs"`` resolved to the axes of TensorFlow."""
    if not isinstance(regularizer, Regularizer):
        return regularizer
    outputs, inputs = axes_of(store, weight.ndim)
    place = Place(
        names=(name or "a weight",),
        shape=tuple(weight.shape),
        axes={"outputs": outputs, "inputs": inputs},
        start=lambda: weight,
    )
    return regularizer.resolve(place)


def total(penalties: Iterable[Tensor | None]) -> Tensor:
    """The sum of what is not None; 0 if nothing is."""
    found = [penalty for penalty in penalties if penalty is not None]
    return torch.stack(found).sum() if len(found) > 1 else found[0] if found else torch.tensor(0.0)
