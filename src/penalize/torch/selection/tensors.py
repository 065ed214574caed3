"""PyTorch's tensors, as a path keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penalize.selection.arrays import PlainArray

_DTYPES = {str(dtype): dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)}


class Tensors:
    """See :class:`penalize.selection.arrays.Arrays`."""

    kind = "tensor"

    def holds(self, value: Any) -> bool:
        return isinstance(value, Tensor)

    def packed(self, array: Tensor) -> PlainArray:
        flat = array.detach().cpu().contiguous().reshape(-1)
        return PlainArray(
            str(array.dtype), list(array.shape), flat.view(torch.uint8).numpy().tobytes()
        )

    def unpacked(self, packed: PlainArray) -> Tensor:
        dtype = _DTYPES[packed.dtype]
        if not packed.data:
            return torch.empty(packed.shape, dtype=dtype)
        return torch.frombuffer(bytearray(packed.data), dtype=dtype).reshape(packed.shape)

    def doubles(self, array: Tensor) -> np.ndarray:
        found = array.detach().cpu()
        found = found.abs() if found.is_complex() else found
        return found.double().numpy()

    def stacked(self, arrays: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(arrays))


TENSORS = Tensors()
