"""States as bytes, without pickle: reading them runs nothing and makes plain data only.

A state is a number, a string, None, a tensor, or a list, tuple or dictionary of states. The bytes
are the length of a JSON text (8 bytes, little end first), that text, and the elements of the
tensors one after another, in the order of the machine. In the text stand tensors, tuples and
dictionaries, whose keys may be numbers, as an object with one key that says what it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from penalize.errors import PathError

_DTYPES = {str(dtype): dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)}
_LENGTH = 8


def encoded(state: Any) -> bytes:
    """The bytes of a state.

    Raises:
        PathError: something in it is of another type.
    """
    parts: list[bytes] = []
    text = json.dumps(_as_json(state, parts), separators=(",", ":")).encode()
    return b"".join([len(text).to_bytes(_LENGTH, "little"), text, *parts])


def decoded(data: bytes) -> Any:
    """The state of such bytes.

    Raises:
        ValueError, KeyError, TypeError, RuntimeError: they are of something else.
    """
    end = _LENGTH + int.from_bytes(data[:_LENGTH], "little")
    return _from_json(json.loads(data[_LENGTH:end]), memoryview(data)[end:])


def _as_json(state: Any, parts: list[bytes]) -> Any:
    if isinstance(state, Tensor):
        flat = state.detach().cpu().contiguous().reshape(-1)
        data = flat.view(torch.uint8).numpy().tobytes()
        place = sum(map(len, parts))
        parts.append(data)
        return {"tensor": [str(state.dtype), list(state.shape), place, len(data)]}
    if isinstance(state, Mapping):
        return {"dict": [[_as_json(k, parts), _as_json(v, parts)] for k, v in state.items()]}
    if isinstance(state, tuple):
        return {"tuple": [_as_json(each, parts) for each in state]}
    if isinstance(state, list):
        return [_as_json(each, parts) for each in state]
    if state is None or isinstance(state, bool | int | float | str):
        return state
    raise PathError(
        f"a state to be kept has a {type(state).__name__}", "leave saved away, or keep plain data"
    )


def _from_json(found: Any, data: memoryview) -> Any:
    if isinstance(found, list):
        return [_from_json(each, data) for each in found]
    if not isinstance(found, dict):
        return found
    ((kind, inner),) = found.items()
    if kind == "tuple":
        return tuple(_from_json(each, data) for each in inner)
    if kind == "dict":
        return {_from_json(key, data): _from_json(value, data) for key, value in inner}
    dtype, shape, place, length = {"tensor": inner}[kind]
    if not length:
        return torch.empty(shape, dtype=_DTYPES[dtype])
    part = bytearray(data[place : place + length])
    return torch.frombuffer(part, dtype=_DTYPES[dtype]).reshape(shape)
