"""What a path asks of the arrays in the state of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

State = Mapping[str, Any]
"""All that a model is, by name: arrays of what is trained, and of what goes along with it."""


class PlainArray(NamedTuple):
    """An array as plain data."""

    dtype: str
    shape: list[int]
    data: bytes


class Arrays(Protocol):
    """The arrays of a framework, as a path needs them."""

    kind: str
    """What they are called in a results file."""

    def holds(self, value: Any) -> bool:
        """Whether a value is one of them."""

    def packed(self, array: Any) -> PlainArray:
        """An array as plain data."""

    def unpacked(self, packed: PlainArray) -> Any:
        """The array again."""

    def doubles(self, array: Any) -> np.ndarray:
        """The numbers of an array in float64; of complex ones their absolute values."""

    def stacked(self, arrays: Sequence[Any]) -> Any:
        """Several of one shape as one, along a new first axis."""


class NumpyArrays:
    """NumPy's, as the wings of JAX and Keras keep what a path has found."""

    kind = "array"

    def holds(self, value: Any) -> bool:
        """See :class:`Arrays`."""
        return isinstance(value, np.ndarray)

    def packed(self, array: np.ndarray) -> PlainArray:
        """See :class:`Arrays`."""
        return PlainArray(array.dtype.name, list(array.shape), array.tobytes())

    def unpacked(self, packed: PlainArray) -> np.ndarray:
        """See :class:`Arrays`."""
        flat = np.frombuffer(packed.data, np.dtype(packed.dtype))
        return flat.reshape(packed.shape).copy()

    def doubles(self, array: np.ndarray) -> np.ndarray:
        """See :class:`Arrays`."""
        return (np.abs(array) if array.dtype.kind == "c" else array).astype(np.float64)

    def stacked(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """See :class:`Arrays`."""
        return np.stack(arrays)


def is_finite(state: State, arrays: Arrays) -> bool:
    """Whether all numbers of a state are finite."""
    return all(bool(np.isfinite(arrays.doubles(w)).all()) for w in state.values())
