"""States as bytes, without pickle: reading them runs nothing and makes plain data only.

A state is a number, a string, None, an array, or a list, tuple or dictionary of states. The bytes
are the length of a JSON text (8 bytes, little end first), that text, and the elements of the
arrays one after another, in the order of the machine. In the text stand arrays, tuples and
dictionaries, whose keys may be numbers, as an object with one key that says what it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from penalize.errors import PathError
from penalize.selection.arrays import Arrays, PlainArray

_LENGTH = 8


def encoded(state: Any, arrays: Arrays) -> bytes:
    """The bytes of a state.

    Raises:
        PathError: something in it is of another type.
    """
    parts: list[bytes] = []
    text = json.dumps(_as_json(state, parts, arrays), separators=(",", ":")).encode()
    return b"".join([len(text).to_bytes(_LENGTH, "little"), text, *parts])


def decoded(data: bytes, arrays: Arrays) -> Any:
    """The state of such bytes.

    Raises:
        ValueError, KeyError, TypeError, RuntimeError: they are of something else.
    """
    end = _LENGTH + int.from_bytes(data[:_LENGTH], "little")
    return _from_json(json.loads(data[_LENGTH:end]), memoryview(data)[end:], arrays)


def _as_json(state: Any, parts: list[bytes], arrays: Arrays) -> Any:
    if arrays.holds(state):
        dtype, shape, data = arrays.packed(state)
        place = sum(map(len, parts))
        parts.append(data)
        return {arrays.kind: [dtype, shape, place, len(data)]}
    if isinstance(state, Mapping):
        pairs = state.items()
        return {
            "dict": [[_as_json(k, parts, arrays), _as_json(v, parts, arrays)] for k, v in pairs]
        }
    if isinstance(state, tuple):
        return {"tuple": [_as_json(each, parts, arrays) for each in state]}
    if isinstance(state, list):
        return [_as_json(each, parts, arrays) for each in state]
    if state is None or isinstance(state, bool | int | float | str):
        return state
    raise PathError(
        f"a state to be kept has a {type(state).__name__}", "leave saved away, or keep plain data"
    )


def _from_json(found: Any, data: memoryview, arrays: Arrays) -> Any:
    if isinstance(found, list):
        return [_from_json(each, data, arrays) for each in found]
    if not isinstance(found, dict):
        return found
    ((kind, inner),) = found.items()
    if kind == "tuple":
        return tuple(_from_json(each, data, arrays) for each in inner)
    if kind == "dict":
        return {_from_json(k, data, arrays): _from_json(v, data, arrays) for k, v in inner}
    dtype, shape, place, length = {arrays.kind: inner}[kind]
    return arrays.unpacked(PlainArray(dtype, shape, bytes(data[place : place + length])))
