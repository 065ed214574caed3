"""Whether tensors still look as they did: what was decided for them then holds as long."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

_Guards: Any
try:
    from torch._C._dynamo.guards import TensorGuards as _Guards
except ImportError:
    _Guards = None

_WHOLE = {Tensor, torch.nn.Parameter}


class Looks:
    """Class, type, device, shape, strides, sign and whether they train, of tensors in their order.

    Where PyTorch has it, what a compiled function asks of its inputs is asked: in one call for
    all, so that thousands of small tensors cost little. What that refuses is looked at one by one.

    Args:
        tensors: any, in columns. Nothing holds them.
    """

    def __init__(self, *columns: Sequence[Tensor]) -> None:
        self._found = [list(map(look_of, column)) for column in columns]
        self._guards = self._guards_of(columns)

    def are_of(self, *columns: Sequence[Tensor]) -> bool:
        """Whether these look the same."""
        if self._guards is not None and [*map(len, columns)] == [*map(len, self._found)]:
            # Whether they train is nothing to it while no gradients are computed.
            with torch.enable_grad():
                if self._guards.check(*chain(*columns)):
                    return True
        if [list(map(look_of, column)) for column in columns] != self._found:
            return False
        # What is around is another, such as the mode of autocast: nothing that is looked at.
        self._guards = self._guards_of(columns)
        return True

    def _guards_of(self, columns: Sequence[Sequence[Tensor]]) -> Any:
        xs = list(chain(*columns))
        if _Guards is None or not xs:
            return None
        looks = list(chain(*self._found))
        if any(look[-1] is None for look in looks):
            return None
        sizes, strides = ([list(look[i]) for look in looks] for i in (_SHAPE, _STRIDES))
        try:
            with torch.enable_grad():
                guards = _Guards(*xs, dynamic_dims_sizes=sizes, dynamic_dims_strides=strides)
                # What is there twice it refuses always.
                return guards if guards.check(*xs) else None
        except Exception:  # noqa: BLE001  # it is PyTorch's own: whatever it is, there is another way
            return None


_SHAPE, _STRIDES = -2, -1


def look_of(x: Tensor) -> tuple[Any, ...]:
    """The same of one, in Python; of a class of its own, less how it lies."""
    kind = type(x), x.dtype, x.device, x.requires_grad
    if type(x) not in _WHOLE or x.layout is not torch.strided:
        return *kind, None, None, x.shape, None
    return *kind, x.is_neg(), x._is_zerotensor(), x.shape, x.stride()
