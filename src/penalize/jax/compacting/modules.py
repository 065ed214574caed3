"""Modules of Flax NNX: whether they can be compacted, and copies of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from penalize.compacting import proof
from penalize.compacting.proof import EPS, Array
from penalize.compacting.sizes import Shape, other_shapes
from penalize.compacting.wiring import AxisUnits, ChainCut, ChainWiring
from penalize.errors import ModelError
from penalize.jax.compacting.following import ProgramWalk, unknown
from penalize.jax.compacting.layers import ModuleCall, followed, shrink
from penalize.jax.compacting.watching import layers_of, program_of
from penalize.jax.trees import component


def check(model: nnx.Module) -> None:
    """Refuse a module in training mode."""
    for path, module in nnx.iter_modules(model):
        held = vars(module)
        if held.get("deterministic") is False or held.get("use_running_average") is False:
            name = ".".join(str(component(key)) for key in path)
            raise ModelError(
                f"{name!r} of this {type(model).__name__}, a {type(module).__name__}, is in "
                "training mode, where there are no constants behind dropout or a norm",
                "call model.eval() before it is compacted, and train() on the result",
            )


def wide_numbers() -> AbstractContextManager[Any]:
    """A context in which JAX has float64."""
    home = jax if hasattr(jax, "enable_x64") else jax.experimental  # before JAX 0.8
    found: AbstractContextManager[Any] = home.enable_x64(True)
    return found


def in_float64(model: nnx.Module, inputs: Sequence[Array]) -> nnx.Module | None:
    """A copy of a module in float64; None if it computes in another type all the same."""
    wide = nnx.clone(model)
    with wide_numbers():
        for _, node in nnx.iter_graph(wide):
            if isinstance(node, nnx.Variable) and jnp.issubdtype(node.dtype, jnp.floating):
                node.set_value(jnp.asarray(np.asarray(node[...]), jnp.float64))
            elif isinstance(node, nnx.Module) and vars(node).get("dtype") is not None:
                held: Any = node
                held.dtype = None  # that of its inputs and weights
        try:
            made = jax.eval_shape(_plain(wide), *map(_widened, inputs))
        except Exception:  # noqa: BLE001 - whatever is raised in its code; tracing it says why
            return None
    return wide if all(x.dtype == jnp.float64 for x in made) else None


def _widened(x: Array) -> Array:
    return x if x.dtype.kind in "biuc" else x.astype(np.float64)


def _plain(model: nnx.Module) -> Callable[..., list[Any]]:
    graph, state = nnx.split(model)
    return lambda *x: jax.tree.leaves(nnx.merge(graph, state)(*x))


def largest_cut(
    model: nnx.Module, wide: nnx.Module | None, inputs: Sequence[Array], biases: bool
) -> ChainCut:
    """The largest cut of a module after which it runs: layers stay whose sizes stand in its code.

    Args:
        model: the module.
        wide: the module in float64, if it computes in that.
        inputs: the example.
        biases: whether layers may be given biases.
    """

    def cut(stay: Collection[str]) -> ChainCut:
        with nullcontext() if wide is None else wide_numbers():
            given = inputs if wide is None else [*map(_widened, inputs)]
            return _decided(model if wide is None else wide, given, biases, stay)

    found = cut(())
    if _takes(without(model, found), inputs):
        return found
    smaller = [row.name for row in found.rows if row.after < row.before]
    alone = {name: cut([other for other in smaller if other != name]) for name in smaller}
    return cut([name for name in smaller if not _takes(without(model, alone[name]), inputs)])


def _takes(model: nnx.Module, inputs: Iterable[Any]) -> bool:
    """Whether a module runs on inputs of these shapes."""
    try:
        jax.eval_shape(_plain(model), *inputs)
    except Exception:  # noqa: BLE001 - whatever is raised in the code of a module
        return False
    return True


def _decided(
    model: nnx.Module, inputs: Sequence[Array], biases: bool, stay: Collection[str]
) -> ChainCut:
    wiring = ChainWiring()
    for shapes in ([x.shape for x in inputs], *_other_shapes(model, inputs)):
        given = [np.zeros(shape, x.dtype) for shape, x in zip(shapes, inputs, strict=True)]
        _follow(model, given, wiring, biases, stay)
    for name, layer in layers_of(model).items():
        call = ModuleCall(layer, name, wiring, (0, getattr(layer, "out_features", 0)), biases)
        if not (isinstance(layer, nnx.BatchNorm) or wiring.knows(call.named("kernel"))):
            unseen = followed(call, AxisUnits.plain(layer.kernel.shape[-2]))
            wiring.keep(unseen.ids, "it is called where compact does not see it, or not at all")
    return wiring.decided()


def _other_shapes(model: nnx.Module, inputs: Sequence[Array]) -> list[list[Shape]]:
    def may_be(shapes: Sequence[Shape]) -> bool:
        abstract: Any = jax.ShapeDtypeStruct
        given = (abstract(s, x.dtype) for s, x in zip(shapes, inputs, strict=True))
        return _takes(model, given)

    return other_shapes([x.shape for x in inputs], may_be)


def _follow(
    model: nnx.Module,
    inputs: Sequence[Array],
    wiring: ChainWiring,
    biases: bool,
    stay: Collection[str],
) -> None:
    """Note what a module does with units, on inputs of one size."""
    layers, program = layers_of(model), program_of(model, inputs)

    def made(name: str, x: AxisUnits, like: Any) -> AxisUnits:
        call = ModuleCall(layers[name], name, wiring, tuple(like.shape), biases)
        if program.calls.count(name) > 1:
            wiring.keep(x.ids, why := f"{name!r} is called more than once")
            wiring.keep(followed(call, AxisUnits.plain(len(x.ids))).ids, why)
            return AxisUnits.plain(like.shape[-1])
        out = followed(call, x)
        if call.named("kernel") in stay:
            wiring.keep(out.ids, "its number stands in the model's code")
        return out

    given = [unknown(x) for x in program.inputs]
    for each in ProgramWalk(wiring, made).run(program.jaxpr, program.constants, given):
        wiring.keep(each.ids, "it is an output of the model")


def without(model: nnx.Module, cut: ChainCut) -> nnx.Module:
    """A copy of a module without what goes."""
    found = nnx.clone(model)
    touched = {name.rpartition(".")[0] for name in (*(n for n, _ in cut.indices), *cut.offsets)}
    for name, layer in layers_of(found).items():
        if name in touched:
            shrink(layer, name, cut)
    return found


def why_not_equal(
    model: nnx.Module,
    smaller: nnx.Module,
    wide: nnx.Module | None,
    cut: ChainCut,
    inputs: Sequence[Array],
) -> str:
    """Where a module and what was cut of it differ; empty if nowhere.

    Args:
        model: the module.
        smaller: what was cut of it.
        wide: the module in float64, if it computes in that.
        cut: what went.
        inputs: the example.
    """
    if wide is not None:
        with wide_numbers():
            narrow, wider = without(wide, cut), [*map(_widened, inputs)]
            why = proof.why_not_equal(_run(wide), _run(narrow), wider, EPS["float64"])
        if why:
            return why
    return proof.why_not_equal(
        _run(model), _run(smaller), inputs, _eps(model), roughly=wide is not None
    )


def _run(model: nnx.Module) -> proof.Run:
    graph, state = nnx.split(model)
    run = jax.jit(lambda state, *x: jax.tree.leaves(nnx.merge(graph, state)(*x)))
    return lambda inputs: [np.asarray(y) for y in run(state, *inputs)]


def _eps(model: nnx.Module) -> float:
    """Rounding in the narrowest type of a module's numbers."""
    types = [str(x.dtype) for x in jax.tree.leaves(nnx.state(model))]
    given = (vars(module).get("dtype") for _, module in nnx.iter_modules(model))
    types += [jnp.dtype(dtype).name for dtype in given if dtype is not None]
    return max((EPS[name] for name in types if name in EPS), default=EPS["float32"])


def size_of(model: nnx.Module) -> int:
    """How many numbers the parameters are."""
    return sum(int(x.size) for x in jax.tree.leaves(nnx.state(model, nnx.Param)))


def zeros_in(model: nnx.Module) -> tuple[int, int]:
    """How many weights are 0, and how many are small but not 0."""
    weights = [np.abs(np.asarray(x)) for x in jax.tree.leaves(nnx.state(model, nnx.Param))]
    zero = sum(int((w == 0).sum()) for w in weights)
    return zero, sum(int(((w != 0) & (w < 1e-3 * w.max())).sum()) for w in weights if w.size)
