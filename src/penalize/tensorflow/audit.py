"""``audit``: the factor with which each declared penalty really enters a loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from penalize.errors import LossError
from penalize.probes import Probed
from penalize.report import Measured, Report
from penalize.tensorflow.collection import collected
from penalize.tensorflow.declared import Declared
from penalize.tensorflow.factors import NONLINEAR, Factor, factors
from penalize.tensorflow.plan import Plan


def audit(
    loss: Any,
    plan: Probed | None = None,
    *,
    scope: str | None = None,
    session: Any = None,
    feed_dict: Mapping[Any, Any] | None = None,
    strict: bool = False,
) -> Report:
    """The factor with which each declared penalty enters a loss, measured.

    ========  ==================================================================
    factor    what it means
    ========  ==================================================================
    1         applied once
    0         never applied: the penalty is declared, and the loss is without it
    0.01      the strength is multiplied again, as by ``0.01 * sum(losses)``
    2         applied twice
    (none)    a penalty of a penalty, or another nonlinear function of it
    ========  ==================================================================

    The factor is ∂loss/∂penalty. In a graph of TensorFlow 1 it comes from symbolic differentiation
    in a copy: nothing is run, and the graph stays as it is, also when it is finalized. One that
    depends on a placeholder or a variable is looked up in the session. In TensorFlow 2 the loss is
    called twice, with every ``tf.function`` of the process run eagerly meanwhile: whatever else it
    changes, such as the statistics of a batch normalization, changes twice.

    Args:
        loss: a tensor of a TensorFlow 1 graph: the penalties are those of its collection, and of
            the plan. Or, in TensorFlow 2, a function without arguments that returns the loss, for
            the penalties of the plan (``model.losses`` of a Keras model count as well).
        plan: what :func:`regularize` returned, or ``penalize.keras.regularize`` on the TensorFlow
            backend.
        scope: of the collection only what is declared in this scope or below.
        session: where to look up what a factor depends on, if anything.
        feed_dict: for placeholders that a factor depends on.
        strict: raise unless every penalty enters exactly once.

    Returns:
        A report that prints as a table; its rows have ``name`` and ``factor``.

    Raises:
        LossError: the loss is neither, or there is no plan for a function, or no plan was passed.
        NoMatchError: nothing is declared in the scope.
        ModelError: a variable of the plan's module was replaced.
        AuditError: strict, and a penalty does not enter exactly once.
    """
    if plan is not None:
        _check_plan(plan)
    if isinstance(loss, tf.Tensor) and hasattr(loss, "graph"):
        targets = plan.targets() if isinstance(plan, Plan) else []
        declared: list[Declared] = [*collected(loss.graph, scope), *targets]
        report = report_on(loss, declared, session, feed_dict)
    elif callable(loss) and _runs_anew(loss) and plan is not None and tf.executing_eagerly():
        report = _report_on_function(loss, plan)
    else:
        raise LossError(
            f"audit got a {type(loss).__name__} as the loss",
            "pass the tensor of a TensorFlow 1 graph that is minimized, or, in TensorFlow 2, a "
            "function that returns the loss, and the plan: audit(lambda: loss_of(batch), plan)",
        )
    if strict:
        report.check()
    return report


def _check_plan(plan: Any) -> None:
    if not isinstance(plan, Probed):
        raise LossError(
            f"audit got a {type(plan).__name__} as the plan",
            "pass what regularize(model, rules) of penalize.tensorflow or penalize.keras returns",
        )
    if isinstance(plan, Plan):
        return
    import keras

    if keras.backend.backend() != "tensorflow" or getattr(plan, "mode", "") != "loss":
        raise LossError(
            "this plan of a Keras model acts on another backend, or not in the loss",
            'pass one of mode="loss", on the TensorFlow backend',
        )


def _runs_anew(function: Callable[[], Any]) -> bool:
    """Not what was traced and has forgotten its Python: it would not call the plan again."""
    return type(function).__name__ not in ("ConcreteFunction", "AtomicFunction")


def _report_on_function(loss: Callable[[], Any], plan: Probed) -> Report:
    names = [name for name, _ in plan.penalized()]
    first, second = _slopes(loss, plan, names, 0.0), _slopes(loss, plan, names, 1.0)
    return Report(
        [
            Measured(name, a, "", 1e-4)
            if math.isclose(a, b, rel_tol=1e-4)
            else Measured(name, math.nan, NONLINEAR)
            for name, a, b in zip(names, first, second, strict=True)
        ]
    )


def _slopes(loss: Callable[[], Any], plan: Probed, names: list[str], at: float) -> list[float]:
    """∂loss/∂penalty of each row, with every penalty raised by a number."""
    raised = {name: tf.constant(at) for name in names}
    was_eager = tf.config.functions_run_eagerly()
    # A function that was traced before would not call the plan again.
    tf.config.run_functions_eagerly(True)
    try:
        with (
            tf.GradientTape() as tape,
            plan.probed(lambda name, value: value + tf.cast(raised[name], value.dtype)),
        ):
            tape.watch(list(raised.values()))
            value = loss()
    finally:
        tf.config.run_functions_eagerly(was_eager)
    if not tf.is_tensor(value):
        raise LossError(
            f"the function returned a {type(value).__name__}", "return the loss, a tensor"
        )
    found = tape.gradient(value, list(raised.values()), unconnected_gradients="zero")
    return [float(slope) for slope in found]


def report_on(
    loss: Any,
    entries: Sequence[Declared],
    session: Any = None,
    feed_dict: Mapping[Any, Any] | None = None,
) -> Report:
    """The factor with which each entry enters the loss."""
    measured = factors(loss, entries, session, feed_dict)
    tolerance = _tolerance(loss.dtype)
    return Report([_row(e, f, entries, tolerance) for e, f in zip(entries, measured, strict=True)])


def _tolerance(dtype: tf.DType) -> float:
    """How far a factor may be off by the rounding of a mean over a large batch."""
    return 1e-2 if dtype.size < 4 else 1e-4


def _row(
    entry: Declared, factor: Factor, entries: Sequence[Declared], tolerance: float
) -> Measured:
    if not entry.is_penalty:
        return Measured(entry.name, math.nan, "weights, not a penalty: no regularizer was applied")
    note = factor.reason
    inside = [e.name for e in entries if e is not entry and entry.takes_in(e)]
    if inside and not note:
        note = f"made of what is collected already: {', '.join(map(repr, inside))}"
    return Measured(entry.name, factor.value, note, tolerance)
