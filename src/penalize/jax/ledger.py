"""One penalty acts through one door only, as far as it can be told when a step is traced.

Doors are the transforms of a plan, those of other plans with the same penalties, weight decay of
optax beside an L2, and ``plan.penalty(params)`` in a loss that is differentiated in the same step.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from penalize.errors import AppliedTwiceError
from penalize.jax.chains import Link, Position, reached
from penalize.jax.trees import PenalizedArray, arrays_of
from penalize.regularizers.base import Regularizer

_differentiated: dict[int, set[Regularizer]] = {}
"""Arrays of a step that is traced, by their id → the penalties differentiated there."""


def watched(weights: Sequence[PenalizedArray]) -> list[PenalizedArray]:
    """The same weights, whose penalty is entered when a gradient of it comes back to them.

    What is only looked at, beside the loss or behind ``stop_gradient``, has none.
    """
    values = _watch(tuple(w.regularizer for w in weights), [w.value for w in weights])
    return [w._replace(value=value) for w, value in zip(weights, values, strict=True)]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _watch(regularizers: tuple[Regularizer, ...], values: list[Any]) -> list[Any]:
    return values


@_watch.defjvp
def _sloped(regularizers: tuple[Regularizer, ...], primals: Any, tangents: Any) -> tuple[Any, Any]:
    (values,), (slopes,) = primals, tangents
    marked = []
    for regularizer, value, slope in zip(regularizers, values, slopes, strict=True):
        # An array outside of a trace says nothing of when it was differentiated.
        unit = regularizer.unit()
        if not regularizer.differentiable:
            marked.append(_passes.bind(slope, key=0, regularizer=unit))  # type: ignore[no-untyped-call]
        elif isinstance(value, jax.core.Tracer):
            if id(value) not in _differentiated:
                _differentiated[id(value)] = set()
                weakref.finalize(value, _differentiated.pop, id(value), None)
            marked.append(_passes.bind(slope, key=id(value), regularizer=unit))  # type: ignore[no-untyped-call]
        else:
            marked.append(slope)
    return values, marked


# The identity, whose transpose enters what a gradient comes back through. Only a primitive is told.
_passes = Primitive("penalize_passes")
_passes.def_impl(lambda slope, **_: slope)  # type: ignore[no-untyped-call]
_passes.def_abstract_eval(lambda slope, **_: slope)  # type: ignore[no-untyped-call]
mlir.register_lowering(_passes, mlir.lower_fun(lambda slope, **_: slope, multiple_results=False))
batching.defvectorized(_passes)  # type: ignore[no-untyped-call]


def _came_back(gradient: Any, slope: Any, *, key: int, regularizer: Regularizer) -> list[Any]:
    regularizer.check_gradient()
    _differentiated.get(key, set()).add(regularizer)
    return [gradient]


ad.deflinear2(_passes, _came_back)  # type: ignore[no-untyped-call]


def check_alone(name: str, weights: Sequence[PenalizedArray], params: Any, where: Position) -> None:
    """Raise :class:`AppliedTwiceError` if penalties act through another door as well.

    Args:
        name: what the transform that asks is called.
        weights: what it penalizes.
        params: what it was given.
        where: its place.
    """
    in_loss = [w.name for w in weights if _unit(w) in _differentiated.get(id(w.value), ())]
    if in_loss:
        door = "plan.penalty(params) in the loss of this step"
        instead = "Leave one of them out; to log it, return it beside the loss (has_aux=True)"
        raise AppliedTwiceError(in_loss, door, name, instead)
    for link, part in _others(where, params):
        seen = arrays_of(part).keys()
        theirs: Mapping[str, Regularizer] = getattr(link.settings.get("source"), "penalized", {})
        same = [w.name for w in weights if w.name in seen and _is_in(w, theirs)]
        if same:
            raise AppliedTwiceError(same, link.settings["name"], name, "Leave one of them out")
        l2 = [w.name for w in weights if w.name in seen and w.regularizer.split()[1]]
        if l2 and _decays(link.settings):
            raise AppliedTwiceError(
                l2,
                "the plan's L2",
                f"the weight_decay of {link.kind} (adamw has one by default)",
                "Set weight_decay=0.0 (where hyperparameters are injected, with "
                "static_args=('weight_decay',)), or leave the L2 out of the rules",
            )


def _others(where: Position, params: Any) -> Iterator[tuple[Link, Any]]:
    for link in (*where.before, *where.after):
        yield from reached(link, params)


def _unit(weight: PenalizedArray) -> Regularizer:
    return weight.regularizer.unit()


def _is_in(weight: PenalizedArray, penalized: Mapping[str, Regularizer]) -> bool:
    theirs = penalized.get(weight.name)
    return theirs is not None and theirs.unit() == _unit(weight)


def _decays(settings: Mapping[str, Any]) -> bool:
    decay = settings.get("weight_decay")
    return decay is not None and not (isinstance(decay, int | float) and decay == 0)
