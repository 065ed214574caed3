"""Units on their way through a program of JAX, from one layer to the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import Literal

from penalize.compacting.wiring import NONE, Array, AxisUnits, ChainWiring
from penalize.jax.compacting.watching import CALL

ELEMENTWISE = (
    *("abs", "acos", "acosh", "add", "and", "asin", "asinh", "atan", "atan2", "atanh", "cbrt"),
    *("ceil", "clamp", "convert_element_type", "copy", "cos", "cosh", "div", "eq", "erf"),
    *("erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "integer_pow", "is_finite"),
    *("le", "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne", "neg", "not", "or", "pow"),
    *("rem", "round", "rsqrt", "select_n", "sign", "sin", "sinh", "sqrt", "square"),
    *("stop_gradient", "sub", "tan", "tanh", "xor"),
)
"""Operations of JAX whose outputs depend on one element of each input."""
_CALLS = "jit", "pjit", "closed_call", "checkpoint", "custom_jvp_call", "custom_vjp_call"
_REDUCTIONS = "reduce_max", "reduce_min", "reduce_sum", "reduce_or", "reduce_and"
_WINDOWS = "reduce_window_sum", "reduce_window_max", "reduce_window_min"


class ArrayFacts(NamedTuple):
    """What is known of an array.

    Args:
        ids: the unit of each index of its last axis.
        known: which elements are constants, whatever the finite inputs of the model are.
        value: which constants.
    """

    ids: Array
    known: Array
    value: Array

    @property
    def has_units(self) -> bool:
        return bool((self.ids != NONE).any())

    def moved(self, f: Callable[[Array], Any], ids: Array | None = None) -> ArrayFacts:
        """After what only moves elements."""
        known, value = (np.asarray(f(part)) for part in (self.known, self.value))
        return ArrayFacts(self.ids if ids is None else ids, known, value)


def unknown(like: Any) -> ArrayFacts:
    """An array of which nothing is known."""
    shape, dtype = tuple(like.shape), like.dtype if _is_plain(like) else bool
    known, value = (np.broadcast_to(np.zeros((), each), shape) for each in (bool, dtype))
    return ArrayFacts(_no_units(shape), known, value)


def constant(x: Any) -> ArrayFacts:
    """An array that is the same for every input."""
    if not _is_plain(x):
        return unknown(x)
    value = np.asarray(x)
    return ArrayFacts(_no_units(value.shape), np.ones(value.shape, bool), value)


def _is_plain(x: Any) -> bool:
    """Whether NumPy has the type of an array: it has none of keys of random numbers."""
    return isinstance(getattr(x, "dtype", np.dtype(bool)), np.dtype)


def from_units(x: AxisUnits, like: Any) -> ArrayFacts:
    """What a layer has made."""
    known = ~np.isnan(x.constant)
    value = np.where(known, x.constant, 0.0)
    return ArrayFacts(x.ids, *(np.broadcast_to(part, tuple(like.shape)) for part in (known, value)))


def _no_units(shape: Sequence[int]) -> Array:
    return np.full(shape[-1] if shape else 0, NONE)


def to_units(x: ArrayFacts, wiring: ChainWiring) -> AxisUnits:
    """What a layer reads: a constant counts that is one everywhere but along the last axis."""
    count = x.known.shape[-1]
    known = x.known.reshape(-1, count).all(0) & (not np.iscomplexobj(x.value))
    value = x.value.real.reshape(-1, count).astype(np.float64)
    even = np.isclose(value, value[:1], rtol=1e-13, atol=0.0).all(0)
    wiring.loses(x.ids[known & ~even], "it is a constant, but another one at a border of zeros")
    return AxisUnits(x.ids, np.full(count, np.nan)).with_constant(
        np.where(known & even, value[0], np.nan)
    )


class ProgramWalk:
    """The operations of a program, one after the other.

    Args:
        wiring: where it is noted what layers read and make.
        layer: what a layer makes: its name, the units that it reads, and its output's shape.
    """

    def __init__(
        self, wiring: ChainWiring, layer: Callable[[str, AxisUnits, Any], AxisUnits]
    ) -> None:
        self._wiring, self._layer = wiring, layer

    def run(
        self, jaxpr: Any, constants: Sequence[Any], inputs: Sequence[ArrayFacts]
    ) -> list[ArrayFacts]:
        """What a program makes of inputs."""
        found: dict[Any, ArrayFacts] = dict(
            zip(jaxpr.constvars, map(constant, constants), strict=True)
        )
        found.update(zip(jaxpr.invars, inputs, strict=True))

        def read(x: Any) -> ArrayFacts:
            return constant(x.val) if isinstance(x, Literal) else found[x]

        for eqn in jaxpr.eqns:
            found.update(zip(eqn.outvars, self._made(eqn, [*map(read, eqn.invars)]), strict=True))
        return [read(x) for x in jaxpr.outvars]

    def _made(self, eqn: Any, inputs: list[ArrayFacts]) -> list[ArrayFacts]:
        name = eqn.primitive.name
        if eqn.primitive is CALL:
            like = eqn.params["like"]
            made = self._layer(eqn.params["name"], to_units(inputs[0], self._wiring), like)
            return [from_units(made, like)]
        if name in _CALLS:
            inner = eqn.params.get("jaxpr") or eqn.params["call_jaxpr"]
            return self.run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), inputs)
        out = _followed(eqn, inputs) if len(eqn.outvars) == 1 else None
        if out is not None:
            return [out]
        for x in inputs:
            self._wiring.keep(x.ids, f"{name} may take all of them together")
        return [unknown(x.aval) for x in eqn.outvars]


def _followed(eqn: Any, inputs: Sequence[ArrayFacts]) -> ArrayFacts | None:
    """What an operation with one output makes; None where it is not known what becomes of units."""
    like = eqn.outvars[0].aval
    if not any(x.has_units for x in inputs):
        is_known = all(x.known.all() for x in inputs) and not eqn.effects
        if not is_known or "random" in eqn.primitive.name or not _is_plain(like):
            return unknown(like)
        return constant(_bound(eqn, *(x.value for x in inputs)))
    follow = _HANDLERS.get(eqn.primitive.name)
    return None if follow is None else follow(eqn, inputs, like)


def _bound(eqn: Any, *arrays: Any) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(eqn.primitive.bind(*map(jax.numpy.asarray, arrays), **eqn.params))


def _elementwise(eqn: Any, inputs: Sequence[ArrayFacts], like: Any) -> ArrayFacts | None:
    ids = next(x.ids for x in inputs if x.has_units)
    for x in inputs:
        alike = np.array_equal(x.ids, ids) if x.has_units else _is_even(x)
        if not alike:
            return None
    # What is repeated is computed once: for each shape JAX compiles something.
    shapes = [np.shape(_once(part)) for x in inputs for part in (x.known, x.value)]
    parts = [[_at(part, np.broadcast_shapes(*shapes)) for part in x[1:]] for x in inputs]
    known = reduce(np.logical_and, (each for each, _ in parts))
    if not known.any():
        return unknown(like)._replace(ids=ids)
    value = _bound(eqn, *(each for _, each in parts))
    known, value = (
        np.broadcast_to(a, tuple(like.shape)) for a in (known & np.isfinite(value), value)
    )
    return ArrayFacts(ids, known, value)


def _once(x: Array) -> Array:
    """An array without the repetitions that it is broadcast to: they have size 1."""
    return x[tuple(slice(0, 1) if step == 0 else slice(None) for step in x.strides)]


def _at(x: Array, shape: tuple[int, ...]) -> Array:
    """An array where its repetitions are as often as these; a scalar stays one."""
    return x if x.ndim == 0 else np.broadcast_to(_once(x), shape)


def _is_even(x: ArrayFacts) -> bool:
    """Whether an array without units is a constant, and the same for each of them."""
    if x.value.ndim == 0:
        return bool(x.known)
    return bool(x.known.all() and (x.value == x.value[..., :1]).all())


def _reshape(eqn: Any, inputs: Sequence[ArrayFacts], like: Any) -> ArrayFacts | None:
    """Row by row: channels stay next to each other if the last axis still has them all."""
    count, last = len(inputs[0].ids), like.shape[-1] if like.shape else 0
    if last == 0 or last % count:
        return None
    return inputs[0].moved(
        lambda part: part.reshape(like.shape), np.tile(inputs[0].ids, last // count)
    )


def _reduced(eqn: Any, inputs: Sequence[ArrayFacts], like: Any) -> ArrayFacts | None:
    x, axes = inputs[0], tuple(eqn.params["axes"])
    if x.known.ndim - 1 in axes:
        return None
    if not x.known.any():
        return unknown(like)._replace(ids=x.ids)
    return ArrayFacts(x.ids, np.asarray(x.known.all(axis=axes)), _bound(eqn, x.value))


def _windows(eqn: Any, inputs: Sequence[ArrayFacts], like: Any) -> ArrayFacts | None:
    x, given = inputs[0], eqn.params
    if given["window_dimensions"][-1] != 1 or tuple(given["padding"][-1]) != (0, 0):
        return None
    if not x.known.any():
        return unknown(like)._replace(ids=x.ids)
    holes = jax.lax.reduce_window(
        (~x.known).astype(np.float32),
        np.float32(0),
        jax.lax.add,
        *(given[k] for k in ("window_dimensions", "window_strides", "padding")),
        *(given[k] for k in ("base_dilation", "window_dilation")),
    )
    return ArrayFacts(x.ids, np.asarray(holes) == 0, _bound(eqn, x.value))


def _broadcast(eqn: Any, inputs: Sequence[ArrayFacts], like: Any) -> ArrayFacts | None:
    x = inputs[0]
    if eqn.params["broadcast_dimensions"][-1] != len(like.shape) - 1:
        return None
    return x.moved(lambda part: _bound(eqn, part)) if len(x.ids) == like.shape[-1] else None


def _squeezed(eqn: Any, inputs: Sequence[ArrayFacts], like: Any) -> ArrayFacts | None:
    x = inputs[0]
    if x.known.ndim - 1 in eqn.params["dimensions"]:
        return None
    return x.moved(lambda part: _bound(eqn, part))


_HANDLERS: dict[str, Callable[[Any, Sequence[ArrayFacts], Any], ArrayFacts | None]] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(_REDUCTIONS, _reduced),
    **dict.fromkeys(_WINDOWS, _windows),
    "reshape": _reshape,
    "broadcast_in_dim": _broadcast,
    "squeeze": _squeezed,
}
