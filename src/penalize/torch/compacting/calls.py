"""Calls: one use of an operator in a traced model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import Tensor

from penalize.torch.compacting.readers import Wiring
from penalize.torch.compacting.units import Units
from penalize.torch.compacting.values import Facts, name_of, plain, same_along, values_in


class Call(NamedTuple):
    """One use of an operator."""

    wiring: Wiring
    target: Any
    """The operator, as it can be called."""
    meta: Any
    """A shape and a type for each output, as PyTorch's trace has them."""
    owner: str = ""
    """The module in whose code it stands."""

    @property
    def name(self) -> str:
        """``relu`` of ``aten.relu_.default``."""
        return name_of(self.target)

    @property
    def units(self) -> Units:
        """The units of the model."""
        return self.wiring.units

    @property
    def is_real(self) -> bool:
        """Whether there is one output, of floating-point numbers."""
        return isinstance(self.meta, Tensor) and self.meta.is_floating_point()

    def unknown(self, why: str, *arguments: Any) -> Any:
        """The output where nothing that it reads may go."""
        self.wiring.keep(values_in(arguments), why)
        return plain(self.meta)


def first_along(x: Tensor, dimensions: Iterable[int]) -> Tensor:
    """What stands at the first index of these dimensions, which stay."""
    for d in dimensions:
        x = x.narrow(d, 0, 1)
    return x


def joined_along(units: Units, ids: Tensor, dimensions: Iterable[int]) -> bool:
    """Let units be one along these dimensions, if there are several beside, as heads of channels.

    Returns:
        Whether there are, or nothing changes along these dimensions.
    """
    varying = [d for d in range(ids.ndim) if not same_along(ids, [d])]
    inner = [d for d in dimensions if d in varying]
    if inner and len(inner) == len(varying):
        return False
    if inner:
        units.join(ids, first_along(ids, inner).expand(ids.shape))
    return True


def if_zero(value: Facts) -> Tensor:
    """Where a value is known to be 0."""
    return value.known & (value.constant == 0)
