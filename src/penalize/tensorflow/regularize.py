"""``regularize``: rules and variables → a plan."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from penalize.errors import ArrayError
from penalize.planning import Planned, Roles, planned
from penalize.rules import Rules
from penalize.tensorflow.parameters import read
from penalize.tensorflow.plan import Plan, PlannedParameter
from penalize.tensorflow.weights import Weight


def regularize(
    model: Iterable[Any] | tf.Module | Any,
    rules: Rules | None = None,
    *,
    roles: Roles | None = None,
) -> Plan:
    """A plan: rules, resolved against the variables of a model.

    Nothing acts yet: add ``plan.penalty()`` to the loss. In a graph of TensorFlow 1,
    ``regularized(optimizer, plan=plan)`` does so.

    Args:
        model: a list of variables, such as ``tf.compat.v1.trainable_variables()``; a ``tf.Module``;
            or a Keras model that is built. A partitioned variable is one parameter.
        rules: a regularizer, for the kernels; or a mapping (or list of pairs) selector →
            regularizer, or → None to exempt. Later rows win. A rule that mentions no role and
            names no parameter in full acts on kernels.
        roles: corrects what a parameter is taken for, selector → role. Variables know no type of
            layer, so their role comes from their name, that of their scope, and their shape.

    Raises:
        RulesError, SelectorError, RoleError: the rules or roles are malformed.
        NoMatchError: a selector matches nothing.
        ConflictError: two rules disagree on a variable that a module holds twice.
        GroupsError, ShapeError: a regularizer does not fit a parameter.
        ArrayError: a trainable variable with a regularizer is not real floating-point.
        ModelError: this is no model, it has no variables, or it is not built.
    """
    found = read(model)
    parameters, weights = zip(*found, strict=True)
    rows = planned(parameters, rules, roles, lambda number: weights[number].read())
    return Plan([_entry(row, weight) for row, weight in zip(rows, weights, strict=True)], model)


def _entry(row: Planned, weight: Weight) -> PlannedParameter:
    if row.regularizer is not None and row.parameter.trainable:
        dtype = tf.as_dtype(weight.variables[0].dtype).base_dtype
        if not dtype.is_floating:
            raise ArrayError(
                f"{row.parameter.name!r} of {dtype!r}",
                "a real floating-point variable; exempt it with a rule that gives None",
            )
    return PlannedParameter(row.parameter, row.decision, weight, row.regularizer)
