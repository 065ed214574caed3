"""``plan.halfspace(optimizer)``: exact zeros under any transform of optax, on mini-batches.

The rule is in :mod:`penalize.halfspace`. Here it is put around the transform: what it is given in
place of the gradients, and what its updates become so that weights are exactly 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
import optax
from jax import Array

from penalize.backends import jax as xp
from penalize.errors import OptimizerError
from penalize.halfspace import AVERAGE, HalfSpace, Memory, begun, check_average
from penalize.jax.chains import Link, Position, UnreadableError, links, place
from penalize.jax.ledger import check_alone, check_not_in_loss
from penalize.jax.transforms import (
    PenaltySource,
    Scalar,
    adds_up,
    at_step,
    check_last,
    check_nothing,
    check_numbers,
    reads_the_loss,
)
from penalize.jax.trees import PenalizedArray, leaves_of, with_leaves

NAME = "plan.halfspace(...)"


class KinkedSource(PenaltySource, Protocol):
    """A plan that knows the kinks of its penalties."""

    def check_kinks(self) -> None:
        """Raise unless each penalty has kinks of known size, and one has some."""


class HalfspaceState(NamedTuple):
    """The state: that of the optimizer, and what is remembered of each penalized array."""

    count: Array  # type: ignore[assignment]  # the name that optax gives it, and a tuple has
    inner: Any
    memories: Mapping[str, Memory]


def halfspace(
    source: KinkedSource,
    optimizer: optax.GradientTransformation,
    average: float | None,
    strength: Scalar,
) -> optax.GradientTransformationExtraArgs:
    """Gives the optimizer gradients with penalties, and sets zeros; see ``Plan.halfspace``."""
    a = check_average(AVERAGE if average is None else average)
    check_numbers(NAME, strength=strength)
    source.check_kinks()
    if not isinstance(optimizer, optax.GradientTransformation):
        raise OptimizerError(
            f"the transform {NAME} got a {type(optimizer).__name__}",
            "write plan.halfspace(optax.adam(1e-2)), with the optimizer inside",
        )
    within = optax.with_extra_args_support(optimizer)
    name = NAME  # what another transform finds in the closure
    _check_inside(optimizer)

    def init(params: Any) -> HalfspaceState:
        memories = {w.name: begun(xp.wide(w.value), xp) for w in source.weights(params)}
        return HalfspaceState(jnp.zeros((), jnp.int32), within.init(params), memories)

    def update(
        updates: Any, state: HalfspaceState, params: Any = None, **extra: Any
    ) -> tuple[Any, HalfspaceState]:
        if params is None:
            raise OptimizerError(
                f"the transform {name} was updated without parameters",
                "pass them: updates, state = optimizer.update(gradients, state, params)",
            )
        weights = source.weights(params)
        given = {leaf.name: leaf.value for leaf in leaves_of(updates)}
        check_not_in_loss(name, weights, given.values())
        _check_place(weights, params, optimizer)
        factor = at_step(strength, state.count)
        acting = [w.at(state.count) for w in weights if given.get(w.name) is not None]
        spaces = {w.name: _space(w, factor, a) for w in acting}
        memories, replaced = dict(state.memories), {}
        for of, space in spaces.items():
            found, memories[of] = space.before(xp.wide(given[of]), memories[of])
            replaced[of] = found.astype(given[of].dtype)
        moved, inner = within.update(with_leaves(updates, replaced), state.inner, params, **extra)
        changes = {leaf.name: leaf.value for leaf in leaves_of(moved)}
        set_to = {}
        for of, space in spaces.items():
            set_to[of], memories[of] = _after(space, changes[of], memories[of])
        count = optax.safe_increment(state.count)
        return with_leaves(moved, set_to), HalfspaceState(count, inner, memories)

    return optax.GradientTransformationExtraArgs(init, update)


def _space(w: PenalizedArray, factor: Any, average: float) -> HalfSpace:
    penalty = w.regularizer if isinstance(factor, float) and factor == 1 else None
    penalty = w.regularizer.scaled(factor) if penalty is None else penalty
    return HalfSpace(penalty, xp.wide(w.value), average, xp)


def _after(space: HalfSpace, change: Any, memory: Memory) -> tuple[Any, Memory]:
    """The update that leaves exact zeros: −w where the weight is to be 0."""
    new = space.w + change
    found, memory = space.after(new, memory)
    wide = jnp.promote_types(change.dtype, space.w.dtype)
    kept = jnp.where(found == new, change.astype(wide), (found - space.w).astype(wide))
    return kept, memory


# --- what it is refused for -------------------------------------------------------------------

_OWN_WEIGHTS = {"schedule_free", "lookahead"}
"""Transforms that keep weights of their own, which know nothing of what is set to 0."""


def _check_inside(optimizer: optax.GradientTransformation) -> None:
    inside = [each for link in links([optimizer.update], [None]) for each in _all(link)]
    check_nothing(
        [link for link in inside if link.kind in _OWN_WEIGHTS],
        f"the transform {NAME} has {{}} within, which keeps weights of its own",
        "use plan.gradient()",
    )
    check_nothing(
        [link for link in inside if adds_up(link)],
        f"the transform {NAME} has {{}} within, which would add the penalty up once per batch",
        "put plan.halfspace(...) inside, or take the mean of the gradients",
    )
    check_nothing(
        [link for link in inside if reads_the_loss(link)],
        f"the transform {NAME} has {{}} within, which goes by the value of the loss that it is "
        "given, and that is the data's alone",
        "take an optimizer without a line search",
    )


def _all(link: Link) -> list[Link]:
    return [link, *(each for inner in link.inner for each in _all(inner))]


def _check_place(
    weights: Sequence[PenalizedArray], params: Any, optimizer: optax.GradientTransformation
) -> None:
    try:
        where: Position = place(params, {w.name for w in weights})
    except UnreadableError:
        return  # its own place does not matter to what it does
    check_last(where, NAME)
    check_nothing(
        [link for link in where.before if not link.harmless],
        f"the transform {NAME} stands after {{}}, and would not see the gradient of the data",
        "put the whole chain inside: plan.halfspace(optax.chain(...))",
    )
    inside = links([optimizer.update], [None])
    check_alone(NAME, weights, params, where._replace(before=[*where.before, *inside]))
