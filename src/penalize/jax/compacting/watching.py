"""A module of Flax NNX as a program, in which each call of a layer is one operation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import jax
from flax import nnx
from jax.extend.core import Primitive

from penalize.errors import ModelError
from penalize.jax.trees import component

KINDS = (nnx.Linear, nnx.Conv, nnx.BatchNorm)

CALL: Any = Primitive("layer")
"""A layer's call: its parameter ``name`` is the layer's, and it is never computed."""


@CALL.def_abstract_eval  # type: ignore[untyped-decorator]
def _(_: Any, *, name: str, like: Any) -> Any:
    return jax.core.ShapedArray(like.shape, like.dtype)


def layers_of(model: nnx.Module) -> dict[str, Any]:
    """The layers in a module that are followed, by their names in a plan."""
    return {
        ".".join(str(component(key)) for key in path): module
        for path, module in nnx.iter_modules(model)
        if type(module) in KINDS
    }


class ModuleProgram(NamedTuple):
    """What a module computes.

    Args:
        jaxpr: its operations.
        constants: the arrays that these have beside their inputs.
        inputs: shapes and types.
        calls: the names of layers, as often as each is called.
    """

    jaxpr: Any
    constants: Sequence[Any]
    inputs: Sequence[Any]
    calls: Sequence[str]


def program_of(model: nnx.Module, inputs: Sequence[Any]) -> ModuleProgram:
    """What a module computes, as JAX traces it.

    Raises:
        ModelError: it cannot be called on these inputs, or traced.
    """
    calls: list[str] = []
    graph, state = nnx.split(model)

    def run(*x: Any) -> list[Any]:
        twin = nnx.merge(graph, state)  # here, so that it may change what is its own
        names = {id(layer): name for name, layer in layers_of(twin).items()}
        with _watched(names, calls):
            return jax.tree.leaves(twin(*x))

    try:
        found = jax.make_jaxpr(run)(*inputs)
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise ModelError(
            f"JAX cannot trace a {type(model).__name__} on these inputs "
            f"({type(error).__name__}: {lines[0][:200]})",
            "give inputs that model(*inputs) takes; layers may not be called within jax.vmap, "
            "jax.grad or nnx.jit",
        ) from error
    return ModuleProgram(found.jaxpr, found.consts, found.in_avals, calls)


@contextmanager
def _watched(names: dict[int, str], calls: list[str]) -> Iterator[None]:
    """Have the calls of these layers, and of no others, stand in what is traced."""
    with ExitStack() as stack:
        for kind in KINDS:
            stack.enter_context(
                patch.object(kind, "__call__", _noting(kind.__call__, names, calls))
            )
        yield


def _noting(call: Any, names: dict[int, str], calls: list[str]) -> Any:
    def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
        name = names.get(id(self))
        if name is None or len(args) != 1 or kwargs:
            return call(self, *args, **kwargs)
        calls.append(name)
        like = jax.eval_shape(lambda x: call(self, x), args[0])
        return CALL.bind(args[0], name=name, like=like)

    return noted
