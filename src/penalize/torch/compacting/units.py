"""Units: what has to leave a network together, and what has to stay."""

from __future__ import annotations

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
        self._parents: list[int] = []
        self._reasons: dict[int, str] = {}
        self._dimensions: dict[tuple[str, int], Tensor] = {}
        self.weights: dict[str, Tensor] = {}
        """Parameters and buffers by name."""

    def of(self, name: str, dimension: int) -> Tensor:
        """The units of the indices of a parameter's dimension."""
        key = (name, dimension)
        if key not in self._dimensions:
            count = self.weights[name].shape[dimension]
            start = len(self._parents)
            self._parents += range(start, start + count)
            self._dimensions[key] = torch.arange(start, start + count)
        return self._dimensions[key]

    def dimensions(self) -> dict[tuple[str, int], Tensor]:
        """The units of all dimensions of parameters that anything was said of, as their roots."""
        return {key: self.roots(ids) for key, ids in self._dimensions.items()}

    def roots(self, ids: Tensor) -> Tensor:
        """The number that stands for each unit's set."""
        if not self._parents:
            return ids
        parents = torch.tensor(self._parents)
        found = ids.clamp(min=0)
        while not torch.equal(above := parents[found], found):
            found = above
        return torch.where(ids < 0, ids, found)

    def join(self, a: Tensor, b: Tensor) -> None:
        """Let each of these be one unit with the other at its place; NONE joins nothing."""
        both = (a >= 0) & (b >= 0)
        count = len(self._parents)
        for pair in distinct(a[both] * count + b[both]):
            low, high = sorted((self._root(pair // count), self._root(pair % count)))
            self._parents[high] = low

    def keep(self, ids: Tensor, reason: str) -> None:
        """Let these stay."""
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


def distinct(x: Tensor) -> list[int]:
    """The numbers in a tensor, each once."""
    found = x.reshape(-1).sort().values
    first = torch.ones_like(found, dtype=torch.bool)
    first[1:] = found[1:] != found[:-1]
    numbers: list[int] = found[first].tolist()
    return numbers
