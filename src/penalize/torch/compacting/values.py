"""Values: what is known of a tensor of a traced model, element by element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from penalize.torch.compacting.units import NONE, once


class Piece(NamedTuple):
    """The parameter, or buffer, of which a tensor is a part."""

    name: str
    elements: Tensor
    """Which element of it each element is, counted through."""


class Facts(NamedTuple):
    """A tensor of a traced model, element by element.

    Args:
        units: the unit of which each element is a part.
        known: whether it is a constant, whatever the finite inputs of the model are.
        constant: which constant, where it is known.
        origin: the parameter that it is, or is a part of.
        fixed: its elements at this size, if no input of the model is in them, as in a causal mask.
        is_share: whether it sums to 1 along its last dimension, as the output of a softmax does.
    """

    units: Tensor
    known: Tensor
    constant: Tensor
    origin: Piece | None = None
    fixed: Tensor | None = None
    is_share: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.units.shape)

    @property
    def is_plain(self) -> bool:
        """Whether nothing is known of it."""
        return self.origin is None and not self.has_units and not once(self.known).any()

    @property
    def has_units(self) -> bool:
        return bool((once(self.units) >= 0).any())

    def moved(self, f: Callable[[Tensor], Any]) -> Any:
        """What a function that only moves elements makes of it."""
        parts = [self.units, self.known, self.constant]
        if self.origin is not None:
            parts.append(self.origin.elements)
        found = [f(part) for part in parts]
        if isinstance(found[0], Tensor):
            return self._of(found)
        return [self._of(each) for each in zip(*found, strict=True)]

    def _of(self, parts: Any) -> Facts:
        origin = None if self.origin is None else Piece(self.origin.name, parts[3])
        return Facts(parts[0], parts[1], parts[2], origin)


def plain(meta: Any) -> Any:
    """A value of which nothing is known, of a tensor of PyTorch's trace; or a list of them."""
    if isinstance(meta, list | tuple):
        return [plain(each) for each in meta]
    if not isinstance(meta, Tensor):
        return meta
    shape = tuple(int(size) for size in meta.shape)
    dtype = torch.float64 if meta.is_floating_point() else meta.dtype
    return Facts(
        torch.full((), NONE).expand(shape),
        torch.zeros((), dtype=torch.bool).expand(shape),
        torch.zeros((), dtype=dtype).expand(shape),
    )


def constant(x: Tensor) -> Facts:
    """A value that is the same for every input."""
    return _known(x if not x.is_floating_point() else x.double())._replace(fixed=x)


def parameter(name: str, x: Tensor, elements: Tensor) -> Facts:
    """The value of a parameter, or buffer: in its own type, for a copy in float64 is large."""
    return _known(x)._replace(origin=Piece(name, elements.reshape(x.shape)))


def _known(x: Tensor) -> Facts:
    units, known = torch.full((), NONE), torch.ones((), dtype=torch.bool)
    return Facts(units.expand(x.shape), known.expand(x.shape), x)


def same_along(x: Tensor, dimensions: list[int]) -> bool:
    """Whether what stands in a tensor does not change along these dimensions."""
    x = once(x)
    return all(bool((x == x.narrow(d, 0, 1)).all()) for d in dimensions if x.shape[d] > 1)


def name_of(target: Any) -> str:
    """``relu`` of ``aten.relu_.default``."""
    return str(getattr(target, "__name__", target)).split(".")[0].rstrip("_")


def values_in(arguments: Any) -> list[Facts]:
    """All values among the arguments of an operator."""
    if isinstance(arguments, Facts):
        return [arguments]
    if isinstance(arguments, dict):
        arguments = list(arguments.values())
    if isinstance(arguments, list | tuple):
        return [value for each in arguments for value in values_in(each)]
    return []


def mapped(f: Callable[[Facts], Any], arguments: Any) -> Any:
    """The arguments of an operator, with something in place of each value."""
    if isinstance(arguments, Facts):
        return f(arguments)
    if isinstance(arguments, list | tuple):
        return [mapped(f, each) for each in arguments]
    if isinstance(arguments, dict):
        return {key: mapped(f, each) for key, each in arguments.items()}
    return arguments
