"""One penalty acts through one door only, as far as it can be told when a step is traced.

Doors are the transforms of a plan, those of other plans with the same penalties, weight decay of
optax beside an L2, and ``plan.penalty(params)`` in the loss whose gradients are updated.
"""

from __future__ import annotations

import contextlib
import functools
import numbers
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax

from penalize.errors import AppliedTwiceError
from penalize.jax.chains import Link, Position, reached
from penalize.jax.traces import Mark, Origin, marked, marks, origins, place_of
from penalize.jax.trees import PenalizedArray, arrays_of
from penalize.regularizers.base import Regularizer


def watched(weights: Sequence[PenalizedArray]) -> list[PenalizedArray]:
    """The same weights, whose penalty marks the gradient that comes back to them.

    What is only looked at, beside the loss or behind ``stop_gradient``, has none.
    """
    what = tuple((w.name, w.regularizer.unit()) for w in weights)
    values = _watch(what, [w.value for w in weights])
    return [w._replace(value=value) for w, value in zip(weights, values, strict=True)]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _watch(what: tuple[tuple[str, Regularizer], ...], values: list[Any]) -> list[Any]:
    return values


@_watch.defjvp
def _sloped(
    what: tuple[tuple[str, Regularizer], ...], primals: Any, tangents: Any
) -> tuple[Any, Any]:
    (values,), (slopes,) = primals, tangents
    found = zip(what, values, slopes, strict=True)
    return values, [marked(slope, value, *which) for which, value, slope in found]


def check_not_in_loss(name: str, weights: Sequence[PenalizedArray], updates: Iterable[Any]) -> None:
    """Raise :class:`AppliedTwiceError` if the gradients come from a loss with the same penalties.

    Args:
        name: what the transform that asks is called.
        weights: what it penalizes.
        updates: the gradients, or what was made of them.
    """
    in_loss: dict[Any, list[tuple[Mark, Origin]]] = {}
    for mark in marks(updates):
        for origin in origins(mark.weight):
            in_loss.setdefault(origin.key, []).append((mark, origin))
    twice = [w.name for w in weights if in_loss and _is_among(w, in_loss)]
    if twice:
        door = "plan.penalty(params) in the loss of this step"
        instead = "Leave one of them out; to log it, return it beside the loss (has_aux=True)"
        raise AppliedTwiceError(twice, door, name, instead)


def _is_among(weight: PenalizedArray, in_loss: Mapping[Any, list[tuple[Mark, Origin]]]) -> bool:
    place, penalty = place_of(weight.value), weight.regularizer.unit()
    return any(
        # Several weights may be cut out of one array: then only their names tell them apart.
        mark.regularizer == penalty and (mark.name == weight.name or (here.whole and there.whole))
        for here in (origins(place) if place is not None else ())
        for mark, there in in_loss.get(here.key, ())
    )


def check_alone(name: str, weights: Sequence[PenalizedArray], params: Any, where: Position) -> None:
    """Raise :class:`AppliedTwiceError` if penalties act through another door of the chain as well.

    Args:
        name: what the transform that asks is called.
        weights: what it penalizes.
        params: what it was given.
        where: its place.
    """
    for link, part in _others(where, params):
        seen = arrays_of(part).keys()
        theirs: Mapping[str, Regularizer] = getattr(link.settings.get("source"), "penalized", {})
        same = [w.name for w in weights if w.name in seen and _is_in(w, theirs)]
        if same:
            raise AppliedTwiceError(same, link.settings["name"], name, "Leave one of them out")
        l2 = [w.name for w in weights if w.name in seen and w.regularizer.split()[1]]
        decay = link.settings.get("weight_decay")
        if l2 and _decays(decay):
            door, instead = _of_an_algorithm if _shrinks(decay) else _of_a_user(link.kind)
            raise AppliedTwiceError(l2, "the plan's L2", door, instead)


def _of_a_user(kind: str) -> tuple[str, str]:
    return (
        f"the weight_decay of {kind} (several optimizers have one by default)",
        "Set weight_decay=0.0 (where hyperparameters are injected, with "
        "static_args=('weight_decay',)), or leave the L2 out of the rules",
    )


_of_an_algorithm = (
    "the shrinking of all weights that the optimizer has as a part of its algorithm, as fromage "
    "does",
    "Leave the L2 out of the rules, or take another optimizer",
)


def _others(where: Position, params: Any) -> Iterator[tuple[Link, Any]]:
    for link in (*where.before, *where.after):
        yield from reached(link, params)


def _is_in(weight: PenalizedArray, penalized: Mapping[str, Regularizer]) -> bool:
    theirs = penalized.get(weight.name)
    return theirs is not None and theirs.unit() == weight.regularizer.unit()


def _decays(decay: Any) -> bool:
    return decay is not None and not (isinstance(decay, int | float) and decay == 0)


def _shrinks(decay: Any) -> bool:
    """Whether this is added to an update that is scaled already: then it has the other sign."""
    with contextlib.suppress(jax.errors.ConcretizationTypeError), jax.ensure_compile_time_eval():
        value = decay(0) if callable(decay) else decay
        return isinstance(value, numbers.Real | jax.Array) and bool(value < 0)
    return False
