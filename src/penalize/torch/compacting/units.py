"""Units: what has to leave a network together, and what has to stay."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterable, Mapping

import torch
from torch import Tensor

NONE = -1
"""The unit of an element that is not part of one."""


class Units:
    """Indices of dimensions that are one unit, as a channel of a convolution and of its norm.

    Units are numbers. Tensors of them have one for each element of a tensor of the model, or of one
    of its dimensions, and :data:`NONE` where there is none.
    """

    def __init__(self) -> None:
        self._parents = array("q")
        self._reasons: dict[int, str] = {}
        self._dimensions: dict[tuple[str, int], Tensor] = {}
        self.weights: dict[str, Tensor] = {}
        """Parameters and buffers by name."""
        self.numeric: set[str] = set()
        """Names of those that are used otherwise than as a map's weight or bias."""
        self.later: list[Callable[[], None]] = []
        """What has to be said of units when it is known which are one."""
        self._numbers = torch.arange(0)

    def numbers(self, count: int) -> Tensor:
        """0, 1, 2, …: views of one tensor, as the elements of all parameters."""
        if len(self._numbers) < count:
            self._numbers = torch.arange(max(count, *(w.numel() for w in self.weights.values())))
        return self._numbers[:count]

    def are_numbers(self, x: Tensor) -> bool:
        """Whether a tensor is a view of them."""
        return x.untyped_storage().data_ptr() == self._numbers.untyped_storage().data_ptr()

    def of(self, name: str, dimension: int) -> Tensor:
        """The units of the indices of a parameter's dimension."""
        key = (name, dimension)
        if key not in self._dimensions:
            count = self.weights[name].shape[dimension]
            start = len(self._parents)
            self._parents.extend(range(start, start + count))
            self._dimensions[key] = torch.arange(start, start + count)
        return self._dimensions[key]

    def dimensions(self) -> dict[tuple[str, int], Tensor]:
        """The units of all dimensions of parameters that anything was said of, as their roots."""
        return {key: self.roots(ids) for key, ids in self._dimensions.items()}

    def of_all(self, names: Collection[str]) -> set[int]:
        """The units, as their roots, of all dimensions of these parameters."""
        found = [
            self.roots(ids).tolist() for key, ids in self._dimensions.items() if key[0] in names
        ]
        return {root for each in found for root in each}

    def among(self, values: Iterable[Tensor]) -> set[int]:
        """The units, as their roots, that are anywhere in these."""
        return {root for ids in values for root in distinct(self.roots(once(ids))) if root >= 0}

    def after(self, indices: Mapping[tuple[str, int], Tensor]) -> Units:
        """The units of the same model of whose dimensions these indices are left."""
        found = Units()
        found._parents = self._parents[:]
        found._dimensions = {
            key: ids[indices[key]] if key in indices else ids
            for key, ids in self._dimensions.items()
        }
        return found

    def roots(self, ids: Tensor) -> Tensor:
        """The number that stands for each unit's set."""
        if not self._parents:
            return ids
        parents = torch.frombuffer(self._parents, dtype=torch.int64)
        small = once(ids)
        found = small.clamp(min=0)
        while not torch.equal(above := parents[found], found):
            found = above
        return torch.where(small < 0, small, found).expand(ids.shape)

    def join(self, a: Tensor, b: Tensor) -> None:
        """Let each of these be one unit with the other at its place; NONE joins nothing."""
        a, b = _once_together(a, b)
        both = (a >= 0) & (b >= 0)
        count = len(self._parents)
        for pair in distinct(a[both] * count + b[both]):
            low, high = sorted((self._root(pair // count), self._root(pair % count)))
            self._parents[high] = low

    def settle(self) -> None:
        """Say what was to be said later."""
        later, self.later = self.later, []
        for each in later:
            each()

    def keep(self, ids: Tensor, reason: str) -> None:
        """Let these stay."""
        ids = once(ids)
        for each in distinct(ids[ids >= 0]):
            self._reasons.setdefault(each, reason)

    def kept(self) -> dict[int, str]:
        """Why units have to stay: the first reason for each."""
        found: dict[int, str] = {}
        for each, reason in self._reasons.items():
            found.setdefault(self._root(each), reason)
        return found

    def _root(self, x: int) -> int:
        while self._parents[x] != x:
            self._parents[x] = self._parents[self._parents[x]]
            x = self._parents[x]
        return x


def once(x: Tensor) -> Tensor:
    """A tensor without the repetitions that it is expanded to: they have size 1."""
    for d, step in enumerate(x.stride()):
        if step == 0 and x.shape[d] > 1:
            x = x.narrow(d, 0, 1)
    return x


def _once_together(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The same for two of one shape, along dimensions in which both repeat."""
    for d in range(a.ndim):
        if a.stride(d) == b.stride(d) == 0 and a.shape[d] > 1:
            a, b = a.narrow(d, 0, 1), b.narrow(d, 0, 1)
    return a, b


def distinct(x: Tensor) -> list[int]:
    """The numbers in a tensor, each once."""
    found = once(x).reshape(-1).sort().values
    first = torch.ones_like(found, dtype=torch.bool)
    first[1:] = found[1:] != found[:-1]
    numbers: list[int] = found[first].tolist()
    return numbers
