"""``regularize``: rules and a pytree → a plan."""

from __future__ import annotations

from typing import Any

from penalize.errors import ArrayError
from penalize.jax.parameters import read
from penalize.jax.plan import Plan
from penalize.jax.trees import arrays_of
from penalize.planning import Roles, planned
from penalize.rules import Rules


def regularize(params: Any, rules: Rules | None = None, *, roles: Roles | None = None) -> Plan:
    """Resolve rules against a pytree of parameters.

    Nothing acts yet: add ``plan.penalty(params)`` to the loss, or put ``plan.gradient()``,
    ``plan.decoupled(lr)`` or ``plan.proximal(lr)`` into an ``optax.chain``.

    Args:
        params: any pytree of arrays, concrete or abstract (``jax.eval_shape``): dictionaries, as
            Flax Linen and Haiku have them; Equinox modules; Flax NNX modules and states, where
            ``nnx.Param(value, reg=L1(1e-3))`` declares for one parameter, and wins over rules.
            Functions in it are passed over.
        rules: a regularizer, for the kernels; or a mapping (or list of pairs) selector →
            regularizer, or → None to exempt. Later rows win. A rule that mentions no role and
            names no parameter in full acts on kernels.
        roles: corrects what an array is taken for, selector → role. A tree without modules knows
            only names and shapes.

    Raises:
        RulesError, SelectorError, RoleError: the rules or roles are malformed.
        NoMatchError: a selector matches nothing.
        GroupsError, ShapeError: a regularizer does not fit an array.
        ArrayError: a rule penalizes an array that is not real floating-point.
        ModelError: the tree has no arrays, or leaves that are no arrays.
    """
    records = read(params)
    rows = planned(records, rules, roles, lambda number: arrays_of(params)[records[number].name])
    for row in rows:
        if row.regularizer is not None and row.parameter.note.startswith("of dtype"):
            raise ArrayError(
                f"{row.parameter.name!r} {row.parameter.note}",
                "a real floating-point array; exempt it with a rule that gives None",
            )
    return Plan(rows)
