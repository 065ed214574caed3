"""What a router is given to do in one step: gradients to add, or proximal steps to take.

Both are columns with one entry per weight, so that nothing is made for each weight in each step.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from torch import Tensor

from penalize.regularizers.base import Regularizer
from penalize.steps import Taken
from penalize.torch.model.sharding import local_parts


class Work(NamedTuple):
    """One weight of them, as the jobs look at it."""

    w: Tensor
    beside: Tensor
    """What a kernel passes over together with the weight; the weight itself where it has nothing
    else to read or write."""

    regularizer: Regularizer
    key: Hashable
    """Weights of one key have one scale, or one step."""

    on_device: bool
    """Whether the scale, or step, is a tensor that nobody may wait for."""

    step: Taken | None
    """Of a proximal operator; None where a gradient is added."""

    among: int = 0
    """How many elements all weights of the step have together."""

    average: float = 0.0
    """Of a half-space step: how much of an average stays."""

    @property
    def per_element(self) -> bool:
        """Whether each element has a step of its own."""
        return self.step is not None and self.step.second is not None

    @property
    def kind(self) -> tuple[Hashable, ...]:
        """What weights that go together have in common, whatever the job."""
        return self.key, self.w.device, self.w.dtype


@dataclass(frozen=True)
class Additions:
    """beside ← beside + scale·∇Ω(w)."""

    names: Sequence[str]
    ws: Sequence[Tensor]
    besides: Sequence[Tensor]
    """What the gradients are added to: the gradients of the data, or the weights themselves."""

    regularizers: Sequence[Regularizer]
    keys: Sequence[Hashable]
    """Weights of one key have one scale."""

    on_device: Sequence[bool]
    """Whether the scale is a tensor that nobody may wait for."""

    def local(self) -> Additions:
        """The same on the shards of what is sharded, where Ω treats these as it does the whole."""
        ws, besides = _shards(self.ws, self.besides, self.regularizers)
        return replace(self, ws=ws, besides=besides)

    def __getitem__(self, i: int) -> Work:
        regularizer, key, on_device = self.regularizers[i], self.keys[i], self.on_device[i]
        return Work(
            self.ws[i], self.besides[i], regularizer, key, on_device, None, self.count_of_elements
        )

    @cached_property
    def count_of_elements(self) -> int:
        """Of all weights together."""
        return sum(w.numel() for w in self.ws)


@dataclass(frozen=True)
class Halvings(Additions):
    """Half-space steps: what is beside the weights are the gradients of the data.

    Keys are signs, by which the gradients are multiplied.
    """

    average: float = 0.0
    """How much of an average stays."""

    def __getitem__(self, i: int) -> Work:
        return super().__getitem__(i)._replace(average=self.average)


class Shrinkings:
    """w ← prox of step·Ω at w."""

    def __init__(
        self,
        names: Sequence[str],
        ws: Sequence[Tensor],
        regularizers: Sequence[Regularizer],
        steps: Sequence[Taken],
    ) -> None:
        self.names, self.ws, self.regularizers, self.steps = names, ws, regularizers, steps
        self.besides: list[Tensor] = []
        """The second moment of the optimizer; the weight where it keeps none."""

        self.keys: list[tuple[int, tuple[bool, bool]]] = []
        known: dict[Any, tuple[int, tuple[bool, bool]]] = {}
        for w, step in zip(ws, steps, strict=True):
            factor, second, scale, offset, is_squared, _ = step
            numbers, form = (factor, scale, offset), (second is None, is_squared)
            key = known.get((numbers, form))
            if key is None:
                on_device = any(isinstance(number, Tensor) for number in numbers)
                key = (-1 if on_device else len(known), form)
                if not on_device:
                    known[numbers, form] = key
            self.besides.append(w if second is None else second)
            self.keys.append(key)
        self.on_device = [key[0] < 0 for key in self.keys]

    def local(self) -> Shrinkings:
        """The same on the shards of what is sharded, where Ω treats these as it does the whole."""
        ws, seconds = _shards(self.ws, self.besides, self.regularizers)
        steps = [
            step if step.second is None else step._replace(second=second)
            for step, second in zip(self.steps, seconds, strict=True)
        ]
        return Shrinkings(self.names, ws, self.regularizers, steps)

    def __getitem__(self, i: int) -> Work:
        regularizer, key = self.regularizers[i], self.keys[i]
        beside, on_device = self.besides[i], self.on_device[i]
        return Work(
            self.ws[i], beside, regularizer, key, on_device, self.steps[i], self.count_of_elements
        )

    @cached_property
    def count_of_elements(self) -> int:
        """Of all weights together."""
        return sum(w.numel() for w in self.ws)


def _shards(
    ws: Sequence[Tensor], besides: Sequence[Tensor], regularizers: Sequence[Regularizer]
) -> tuple[list[Tensor], list[Tensor]]:
    pairs = [local_parts(*each) for each in zip(ws, besides, regularizers, strict=True)]
    return [w for w, _ in pairs], [beside for _, beside in pairs]
