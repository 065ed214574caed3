"""What ``regularized`` refuses: losses of which it cannot be sure."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from penalize.errors import (
    AppliedTwiceError,
    LossError,
    NeverAppliedWarning,
    OptimizerError,
    PenaltyError,
    some,
)
from penalize.report import Report
from penalize.tensorflow.declared import Declared, global_step
from penalize.tensorflow.factors import NONLINEAR

v1 = tf.compat.v1


def check_not_scaled(caller: Any) -> None:
    """An optimizer that scales the loss must stand inside, where the penalty is in the loss."""
    kind = type(caller).__name__
    if isinstance(caller, v1.train.Optimizer) and "LossScale" in kind:
        raise OptimizerError(
            f"regularized(...) stands inside of a {kind}, which divides its gradients by the scale "
            "of a loss that had no penalty",
            f"write regularized({kind}(...))",
        )


def check_loss(loss: Any) -> None:
    """The loss must be a tensor of a TensorFlow 1 graph, and not that of one of many replicas."""
    if not isinstance(loss, tf.Tensor) or not hasattr(loss, "graph"):
        raise LossError(
            f"regularized(...) got a {type(loss).__name__} as the loss",
            "pass a tensor of a TensorFlow 1 graph; in TensorFlow 2 use "
            "penalize.tensorflow.regularize and plan.penalty()",
        )
    replica = tf.distribute.get_replica_context()
    if replica is not None and replica.num_replicas_in_sync > 1:
        raise LossError(
            "regularized(...) got the loss of one of several replicas, whose gradients are summed",
            "add the penalty() of penalize.tensorflow.regularize(variables, rules) to the loss, "
            "which is shared out among replicas",
        )


def check_are_penalties(entries: Sequence[Declared], graph: Any) -> None:
    """What stands in the collection must be scalars, and of use in this graph."""
    weights = [entry.name for entry in entries if not entry.is_penalty]
    if weights:
        raise PenaltyError(
            f"{some(weights)}: weights stand in the collection of penalties as they are",
            "scalars, such as l2_regularizer(0.1)(weights), or get_variable(regularizer=...)",
        )
    kept = [entry.name for entry in entries if entry.is_within(graph)]
    if kept:
        raise PenaltyError(
            f"{some(kept)}: computed inside of a function, such as the body of a loop, which no "
            "tensor leaves",
            "get_variable(regularizer=...), which also works there, or a plan of the variables",
        )


def check_are_known(entries: Sequence[Declared], variables: Sequence[Any], graph: Any) -> None:
    """Variables that get_variable made inside of a ``tf.function``: no collection tells of them.

    The function is traced twice; what was declared in the first trace is gone with it.
    """
    known = {id(variable) for entry in entries for variable in entry.variables}
    made = {id(v) for store in graph.get_collection(_STORES) for v in store._vars.values()}
    unknown = [
        v.name.partition(":")[0]
        for v in variables
        if type(v).__name__ == "UnliftedInitializerVariable" and id(v) in made - known
    ]
    if unknown:
        raise LossError(
            f"{some(unknown)} was made by get_variable inside of a tf.function, and what was "
            "declared there is in no collection",
            "make it outside of the function, or pass a plan of the variables",
        )


_STORES = ("__variable_store",)
"""The collection in which ``get_variable`` keeps what it made."""


def check_own_regularization(optimizer: Any, entries: Sequence[Declared]) -> None:
    """TensorFlow's own proximal optimizers have an L1 and an L2 of their own."""
    if not isinstance(optimizer, _PROXIMAL):
        return
    for number, kind in enumerate(("l1", "l2")):
        known = [(entry.name, entry.regularizer) for entry in entries]
        both = [name for name, r in known if r is not None and r.split()[number]]
        if both and getattr(optimizer, f"_{kind}_regularization_strength"):
            argument = f"{kind}_regularization_strength"
            raise AppliedTwiceError(
                both,
                f"the {argument} of {type(optimizer).__name__}",
                "regularized(...)",
                f"Set {argument}=0.0, or declare nothing of that kind",
            )


_PROXIMAL = (v1.train.ProximalGradientDescentOptimizer, v1.train.ProximalAdagradOptimizer)


def warn_of_standing_still(entries: Sequence[Declared]) -> None:
    """Schedules follow the global step, which stands still unless somebody advances it."""
    names = [e.name for e in entries if e.regularizer is not None and e.regularizer.scheduled]
    step = global_step() if names else None
    if step is None or _is_advanced(step):
        return
    warnings.warn(
        f"The strength on {some(names)} follows a schedule, and nothing advances the global step: "
        "it stays what it is at first. Call minimize(loss, global_step="
        "tf.compat.v1.train.get_global_step()).",
        NeverAppliedWarning,
        stacklevel=4,
    )


def _is_advanced(step: Any) -> bool:
    """Whether its graph has an operation that adds to it, or sets it again."""
    changes = [op for op in step.graph.get_operations() if op.type.startswith("Assign")]
    own = [op for op in changes if any(tensor.op is step.op for tensor in op.inputs)]
    return any(op.name != step.initializer.name for op in own)


def check_report(report: Report, once: bool) -> None:
    """Each penalty must be missing in the loss, or, where that is allowed, be in it once."""
    wrong = [row for row in report.declared if not (row.is_missing or (row.ok and once))]
    unknown = [row for row in wrong if math.isnan(row.factor) and row.note != NONLINEAR]
    if unknown:
        raise LossError(
            f"what the loss contains of the penalty on {some(row.name for row in unknown)} is not "
            f"known ({unknown[0].note})",
            "leave the penalties out of the loss, and they are applied once",
        )
    if wrong:
        raise AppliedTwiceError(
            [row.name for row in wrong],
            "the loss",
            "regularized(...)",
            "Leave the penalties out of the loss, and they are applied once. The loss has them so:"
            f"\n{Report(wrong)}\nTo change a strength, change it where it is declared",
        )
