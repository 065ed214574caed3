"""The proximal step behind an update of TensorFlow 1: w ← prox of step·Ω at w."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from penalize.errors import ModeError
from penalize.regularizers.base import Regularizer
from penalize.tensorflow.declared import Declared, global_step
from penalize.tensorflow.steps import step_of, step_size_of
from penalize.tensorflow.weights import Weight, weights_of

v1 = tf.compat.v1


class Acting(NamedTuple):
    """One weight, and what acts on it."""

    weight: Weight
    regularizer: Regularizer


def targets_of(
    declared: Iterable[Declared],
    pairs: Sequence[tuple[Any, Any]],
    optimizer: Any,
) -> list[Acting]:
    """What the proximal step acts on: each weight once, its declared penalties added up.

    Raises:
        ModeError: as :func:`set_by`.
        NoProximalOperatorError: a regularizer has no exact prox under this optimizer.
    """
    _, per_element = step_size_of(optimizer)
    targets = set_by(declared, pairs, "proximal")
    for weight, regularizer in targets:
        where = f"{weight.name!r} under {type(optimizer).__name__}"
        regularizer.check_step(per_element=per_element, where=where)
    return targets


def set_by(
    declared: Iterable[Declared], pairs: Sequence[tuple[Any, Any]], kind: str
) -> list[Acting]:
    """The weights that a step behind the update sets, each with its penalties added up.

    Raises:
        ModeError: a penalty is some function, or a variable has a sparse gradient, a constraint, or
            shards of which only some are updated.
    """
    gradients = {variable.ref(): gradient for gradient, variable in pairs}
    targets = _put_together(declared, kind)
    for weight, _ in targets:
        for variable in weight.variables:
            _check_variable(weight.name, variable, gradients, kind)
    return targets


def _put_together(declared: Iterable[Declared], kind: str) -> list[Acting]:
    """The weights, shards put together, each with what is declared on it."""
    shards: list[Any] = []
    by_variable: dict[Any, Regularizer] = {}
    for entry in declared:
        if entry.regularizer is None:
            raise ModeError(
                f"the penalty on {entry.name!r} is a function, and a {kind} step needs more than "
                "its value",
                'declare a regularizer of penalize, such as L1(1e-3), or use mode="gradient"',
            )
        shards.extend(entry.variables)
        by_variable[entry.variables[0].ref()] = entry.regularizer
    return [Acting(w, by_variable[w.variables[0].ref()]) for w in weights_of(shards)]


def _check_variable(name: str, variable: Any, gradients: Mapping[Any, Any], kind: str) -> None:
    if variable.ref() not in gradients:
        raise ModeError(
            f"{name!r} is partitioned, and only some of its shards are updated",
            "update all of them, or none",
        )
    if gradients[variable.ref()] is None:
        raise ModeError(
            f"{name!r} has no gradient, so the optimizer takes no step that the {kind} one "
            "could follow",
            "take the gradients from compute_gradients() of this optimizer, which has zeros there",
        )
    if isinstance(gradients[variable.ref()], tf.IndexedSlices):
        raise ModeError(
            f"{name!r} has a sparse gradient, and the {kind} step acts on all of it",
            'use mode="gradient", or exempt it with no_regularizer',
        )
    if variable.constraint is not None:
        raise ModeError(
            f"{name!r} has a constraint, which the {kind} step would undo",
            'take the constraint away, or use mode="gradient"',
        )


def steps_before(targets: Sequence[Acting]) -> Any:
    """How many steps there were before the update, which may count itself; None if nobody asks."""
    step = global_step() if any(target.regularizer.scheduled for target in targets) else None
    # A cast is a copy; what reads a variable may be an alias of it.
    return None if step is None else tf.cast(step, tf.int32)


def proximal_update(
    update: Any, targets: Sequence[Acting], optimizer: Any, counted: Any, name: str | None
) -> Any:
    """The operation that runs the update and then the proximal steps.

    Args:
        counted: see :func:`steps_before`.
        update, targets, optimizer, name: what they are called.
    """
    step_size, _ = step_size_of(optimizer)
    with tf.control_dependencies([update]), v1.name_scope("proximal"):
        done = []
        for weight, regularizer in targets:
            w = weight.joined(lambda variable: variable.read_value())
            taken = step_size(optimizer, weight)
            acting = regularizer if counted is None else regularizer.at(counted)
            done += weight.assign(acting.prox_taken(w, step_of(taken, w)))
    return tf.group(update, *done, name=name)
