"""The inputs of a model: one array, or several by place or by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from penalize.errors import PathError

Inputs = Any
"""An array for ``model(x)``, a tuple of them for ``model(*x)``, or a mapping for ``model(**x)``;
samples along the first axis of each."""


def parts_of(x: Inputs) -> dict[str, Any]:
    """The arrays by what they are called: ``x``, ``x[0]``, ``x['name']``."""
    if isinstance(x, Mapping):
        return {f"x[{key!r}]": part for key, part in x.items()}
    if isinstance(x, tuple | list):
        return {f"x[{place}]": part for place, part in enumerate(x)}
    return {"x": x}


def check(x: Inputs, y: Any, is_array: Callable[[Any], bool], kind: str, way_out: str) -> None:
    """Raise :class:`PathError` unless all are arrays, of the framework, with as many samples."""
    named = {**parts_of(x), "y": y}
    for name, part in named.items():
        if not is_array(part):
            raise PathError(
                f"Training got {name} that is no {kind}, but a {type(part).__name__}",
                f"use {way_out}; several inputs are a tuple, for model(*x), or a dictionary, for "
                "model(**x)",
            )
    if isinstance(x, Mapping) and not all(isinstance(key, str) for key in x):
        raise PathError(f"Training got an x with the keys {[*x]}", "name the arguments of forward")
    counts = {len(part) if part.ndim else 0 for part in named.values()}
    if len(counts) > 1 or 0 in counts or len(named) == 1:
        shapes = [
            f"{'a' if name == 'y' else 'an'} {name} of shape {tuple(part.shape)}"
            for name, part in named.items()
        ]
        raise PathError(
            f"Training got {' and '.join(shapes)}",
            "expected as many samples in each, along the first axis",
        )


def mapped(f: Callable[[Any], Any], x: Inputs) -> Any:
    """The inputs with each array replaced."""
    if isinstance(x, Mapping):
        return {key: f(part) for key, part in x.items()}
    if isinstance(x, tuple | list):
        return tuple(f(part) for part in x)
    return f(x)


def taken(x: Inputs, rows: Any) -> Any:
    """The samples with these numbers."""
    return mapped(lambda part: part[rows], x)


def arguments(x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a model is called with, by place and by name."""
    if isinstance(x, Mapping):
        return (), dict(x)
    return (x if isinstance(x, tuple) else (x,)), {}


def output_of(model: Callable[..., Any], x: Any) -> Any:
    """What a model gives for its inputs."""
    args, kwargs = arguments(x)
    return model(*args, **kwargs)
