"""How a plan acts on updates: three ``optax.GradientTransformation``s, and their place in a chain.

Python runs them when a step is traced, so what they refuse costs nothing afterwards.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
import optax
from jax import Array

from penalize.errors import OptimizerError
from penalize.jax.chains import Link, Position, UnreadableError, place
from penalize.jax.ledger import check_alone, check_not_in_loss
from penalize.jax.steps import check_rate, scaling_of
from penalize.jax.trees import PenalizedArray, leaves_of, with_leaves
from penalize.regularizers.base import Regularizer, check_strength

Scalar = float | Array | Callable[[Any], Any]
"""A number, or a schedule: a function of the count of updates."""


class PenaltySource(Protocol):
    """A plan, as its transforms see it."""

    @property
    def penalized(self) -> Mapping[str, Regularizer]:
        """The regularizers by the name of their parameter."""

    def weights(self, params: Any) -> Sequence[PenalizedArray]:
        """The penalized arrays of a tree."""

    def check_prox(self, *, per_element: bool) -> None:
        """Raise unless every penalty has an exact prox."""

    def check_gradients(self) -> None:
        """Raise unless every penalty has a gradient that acts."""


class PenaltyState(NamedTuple):
    """The state of the three: what schedules are functions of."""

    count: Array  # type: ignore[assignment]  # the name that optax gives it, and a tuple has


Change = Callable[[Any, PenalizedArray], Any]
"""(update, weight) → the new update."""


def gradient(source: PenaltySource, strength: Scalar) -> optax.GradientTransformation:
    """Adds ∇Ω(w); see ``Plan.gradient``."""
    name = "plan.gradient()"
    source.check_gradients()

    def begin(where: Position, state: PenaltyState) -> Change:
        check_nothing(
            [link for link in where.before if not link.harmless],
            f"the transform {name} stands after {{}}, and would not be scaled with the gradient of "
            "the data",
            "put it first in the chain, or use plan.decoupled(learning_rate) at its end",
        )
        check_nothing(
            [link for link in where.after if adds_up(link)],
            f"the transform {name} stands before {{}}, which would add it up once per batch",
            "put it inside, into the chain whose gradients are accumulated",
        )
        check_nothing(
            [inner for link in where.after for inner in link.all if reads_the_loss(inner)],
            f"the transform {name} stands before {{}}, which goes by the value of the loss that it "
            "is given, and that is the data's alone",
            "leave it out, and add plan.penalty(params) to the loss, in value_fn too",
        )
        return add(state)

    def add(state: PenaltyState) -> Change:
        factor = at_step(strength, state.count)
        return lambda update, w: update + factor * w.regularizer.gradient(w.value)

    # Where it stands matters to the checks alone.
    return _transform(source, name, begin, add, strength=strength)


def decoupled(
    source: PenaltySource, learning_rate: Scalar, strength: Scalar
) -> optax.GradientTransformation:
    """Subtracts lr·∇Ω(w); see ``Plan.decoupled``."""
    name = "plan.decoupled(...)"
    source.check_gradients()

    def begin(where: Position, state: PenaltyState) -> Change:
        check_last(where, name)
        before = [inner for link in where.before for inner in (link, *link.parts)]
        check_nothing(
            [link for link in before if link.kind in _SKIPPING],
            f"the transform {name} stands after {{}}, and would act in steps that it skips",
            "put both into the chain that it wraps",
        )
        check_nothing(
            [link for link in before if link.kind == "set_to_zero"],
            f"the transform {name} stands after {{}}, and would move what that freezes",
            "exempt it by a rule that gives None, or put both into one mask",
        )
        factor = at_step(learning_rate, state.count) * at_step(strength, state.count)
        return lambda update, w: update - factor * w.regularizer.gradient(w.value)

    return _transform(source, name, begin, learning_rate=learning_rate, strength=strength)


def proximal(
    source: PenaltySource, learning_rate: Scalar, strength: Scalar
) -> optax.GradientTransformation:
    """Sets w to the prox of step·Ω after the update; see ``Plan.proximal``."""
    name = "plan.proximal(...)"

    def begin(where: Position, state: PenaltyState) -> Change:
        check_last(where, name)
        scaling = scaling_of(where, state.count)
        check_rate(where, learning_rate)
        source.check_prox(per_element=scaling.denominators is not None)
        factor = at_step(strength, state.count)

        def change(update: Any, w: PenalizedArray) -> Any:
            # The difference of what is rounded to half precision would not be an exact −w.
            wide = w.value.astype(jnp.promote_types(w.value.dtype, jnp.float32))
            moved = wide + update
            step = scaling.of(w.name)
            step = step._replace(factor=jnp.asarray(step.factor))
            return w.regularizer.scaled(factor).prox_taken(moved, step) - wide

        return change

    return _transform(source, name, begin, learning_rate=learning_rate, strength=strength)


_SKIPPING = {"MultiSteps", "apply_every", "apply_if_finite", "conditionally_mask"}
"""Transforms whose updates are zero in some steps."""


def adds_up(link: Link) -> bool:
    """Whether it sums what it is given in several steps."""
    means = link.settings.get("_use_grad_mean", False)
    return link.kind in ("MultiSteps", "apply_every") and not means


def reads_the_loss(link: Link) -> bool:
    """Line searches and Polyak steps; a plateau may be one of any value."""
    return bool({"value", "value_fn"} & link.arguments) and link.kind != "reduce_on_plateau"


def check_last(where: Position, name: str) -> None:
    """What stands behind, or wraps the chain, must leave alone what was set."""
    check_nothing(
        [link for link in where.after if link.kind != "identity" and "source" not in link.settings],
        f"the transform {name} stands before {{}}, which would change what it set",
        "put it last in the chain",
    )
    if where.around:
        raise OptimizerError(
            f"the transform {name} acts within {where.around[0]}, which may keep parameters of its "
            "own",
            "add plan.penalty(params) to the loss, or use plan.gradient()",
        )


def check_nothing(links: Sequence[Link], found: str, instead: str) -> None:
    """Raise :class:`OptimizerError` if there are such links."""
    if links:
        raise OptimizerError(found.format(links[0].kind), instead)


def at_step(value: Scalar, count: Any) -> Any:
    """A number, or that of a schedule at a step."""
    return value(count) if callable(value) else value


def check_numbers(name: str, **given: Scalar) -> None:
    """Raise :class:`StrengthError` for a number that is no strength."""
    for argument, value in given.items():
        if isinstance(value, numbers.Real | str | None):
            check_strength(name.partition("(")[0], argument, value)


def _transform(
    source: PenaltySource,
    name: str,
    begin: Callable[[Position, PenaltyState], Change],
    otherwise: Callable[[PenaltyState], Change] | None = None,
    **numbers_given: Scalar,
) -> optax.GradientTransformation:
    """A transform that changes the updates of the penalized arrays.

    Args:
        source: the plan.
        name: what it is called.
        begin: checks its place, and gives what it does.
        otherwise: gives what it does where its place cannot be read; None if that is refused.
        numbers_given: what is checked at once, by name.
    """
    check_numbers(name, **numbers_given)

    def init(params: Any) -> PenaltyState:
        source.weights(params)  # refuses another tree before training begins
        return PenaltyState(jnp.zeros((), jnp.int32))

    def update(updates: Any, state: PenaltyState, params: Any = None) -> tuple[Any, PenaltyState]:
        if params is None:
            raise OptimizerError(
                f"the transform {name} was updated without parameters",
                "pass them: updates, state = optimizer.update(gradients, state, params)",
            )
        weights = source.weights(params)
        given = {leaf.name: leaf.value for leaf in leaves_of(updates)}
        check_not_in_loss(name, weights, given.values())
        try:
            where = place(params, {w.name for w in weights})
            check_alone(name, weights, params, where)
            change = begin(where, state)
        except UnreadableError:
            if otherwise is None:
                raise
            change = otherwise(state)
        acting = [w.at(state.count) for w in weights if given.get(w.name) is not None]
        new = {w.name: _cast(change(given[w.name], w), given[w.name], w.value) for w in acting}
        return with_leaves(updates, new), PenaltyState(optax.safe_increment(state.count))

    return optax.GradientTransformation(init, update)


def _cast(new: Any, update: Any, value: Any) -> Any:
    """A value in the dtype of the update, or of the parameter if wider: −w must stay exact."""
    return new.astype(jnp.promote_types(update.dtype, value.dtype))
