"""``load_tf1_checkpoint``: the values that a TensorFlow 1 ``Saver`` wrote → a store's variables."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from penalize.errors import CheckpointError, MissingPackageError
from penalize.names import nearest
from penalize.torch.tf1.store import VariableStore


def load_tf1_checkpoint(
    store: VariableStore, path: str | os.PathLike[str], *, cast: bool = False
) -> list[str]:
    """Fill the variables of a store from a checkpoint of ``tf.compat.v1.train.Saver``, by name.

    Run the model's code once before, so that the variables exist. They are filled in place, so an
    optimizer that has them keeps them. A variable that TensorFlow kept in shards is loaded whole.
    Needs TensorFlow, for reading.

    Args:
        store: every variable of it must be in the checkpoint, with its shape and dtype.
        path: what ``Saver.save`` returned, or the directory of the latest checkpoint.
        cast: whether a floating-point variable may be of another floating-point dtype in the
            checkpoint, and is rounded to its own.

    Returns:
        The names in the checkpoint that no variable of the store has: an optimizer's slots,
        ``global_step`` and so on. They are ignored.

    Raises:
        CheckpointError: a ValueError: there is no checkpoint, the store has no variables, or some
            are missing or differ; it lists all of those, and nothing is loaded.
        MissingPackageError: an ImportError: TensorFlow is not installed.
    """
    if not isinstance(store, VariableStore):
        found = f"{store!r} is no store to load it into; pass a VariableStore"
        raise CheckpointError(path, [found])
    variables = dict(store.named_parameters())
    if not variables:
        raise CheckpointError(
            path, ["the store has no variables yet; run the model's code once before loading"]
        )
    reader = _reader(os.fspath(path))
    problems = list(_problems(variables, reader, cast))
    if problems:
        raise CheckpointError(path, problems)
    values = {name: _tensor(_read(reader, name, path)) for name in variables}
    with torch.no_grad():
        for name, variable in variables.items():
            variable.copy_(values[name])
    return sorted(set(_names(reader)) - set(variables))


def _reader(path: str) -> Any:
    try:
        import tensorflow as tf
    except ImportError as error:
        raise MissingPackageError("tensorflow", "reading a TensorFlow 1 checkpoint") from error
    try:
        return tf.train.load_checkpoint(path)
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        found = "a directory without a checkpoint" if os.path.isdir(path) else "no checkpoint"
        instead = "pass what Saver.save returned, a path without .index or .data"
        raise CheckpointError(path, [f"this is {found}; {instead}"]) from error


def _read(reader: Any, name: str, path: object) -> Any:
    try:
        return reader.get_tensor(name)
    except Exception as error:  # of TensorFlow's own kinds, and of Python's
        problem = f"{name!r} cannot be read ({error}); the file is damaged or incomplete"
        raise CheckpointError(path, [problem]) from error


def _names(reader: Any) -> list[str]:
    # What tf.train.Checkpoint writes beside the values is none.
    return [name for name in reader.get_variable_to_shape_map() if name[0] != "_"]


def _problems(variables: dict[str, Any], reader: Any, cast: bool) -> Iterable[str]:
    """What of the store does not fit, each as a clause."""
    shapes = reader.get_variable_to_shape_map()
    dtypes = reader.get_variable_to_dtype_map()
    for name, variable in variables.items():
        if name not in shapes:
            near = " or ".join(map(repr, _nearest(name, _names(reader))))
            yield f"{name!r} is not in it" + (f" (did you mean {near}?)" if near else "")
            continue
        if tuple(shapes[name]) != tuple(variable.shape):
            yield f"{name!r} has shape {tuple(shapes[name])} in it, not {tuple(variable.shape)}"
        dtype = dtypes[name].name
        if dtype != str(variable.dtype).removeprefix("torch."):
            found = getattr(torch, dtype, None)
            floats = found is not None and found.is_floating_point and variable.is_floating_point()
            if not (cast and floats):
                hint = "; cast=True converts it" if floats else ""
                yield f"{name!r} is of {dtype} in it, not of {variable.dtype}{hint}"


def _nearest(name: str, known: list[str]) -> list[str]:
    dotted = {".".join(other.split("/")): other for other in known}
    return [dotted[near] for near in nearest(name, known) if near in dotted]


def _tensor(array: Any) -> Tensor:
    # torch reads no NumPy array of bfloat16; float32 holds each value of it.
    if array.dtype.name == "bfloat16":
        array = array.astype("float32")
    return torch.tensor(array)
