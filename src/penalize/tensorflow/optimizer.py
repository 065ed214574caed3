"""``regularized``: an optimizer of TensorFlow 1 that applies declared penalties by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from penalize.errors import (
    AppliedTwiceError,
    LossError,
    ModeError,
    OptimizerError,
    PenaltyError,
    some,
)
from penalize.report import Report
from penalize.tensorflow.audit import report_on
from penalize.tensorflow.collection import collected
from penalize.tensorflow.declared import Declared
from penalize.tensorflow.plan import Plan
from penalize.tensorflow.proximal import check_can_act, proximal_update, targets_of

v1 = tf.compat.v1

MODES = ("gradient", "proximal")


def regularized(
    optimizer: Any, scope: str | None = None, *, plan: Plan | None = None, mode: str = "gradient"
) -> RegularizedOptimizer:
    """The optimizer, with every declared penalty of the variables it updates applied once.

    The collection ``REGULARIZATION_LOSSES`` is filled by ``get_variable(regularizer=...)``, and no
    optimizer of TensorFlow reads it. This one does: ``minimize`` and ``compute_gradients`` measure
    which penalties the loss contains already (see :func:`audit`) and add those that are missing.

    Where two networks share a graph, each optimizer takes the penalties of the variables that it
    updates (``var_list``), and leaves the other network's alone.

    Args:
        optimizer: any optimizer of ``tf.compat.v1.train``.
        scope: only what is declared in this scope or below; ``"s"`` does not mean ``"s2"``.
        plan: take the penalties of this plan, and not those of the collection.
        mode: ``"gradient"``, by the loss; or ``"proximal"``: after each update
            w ← argmin_u ½‖u − w‖² + step·Ω(u), with the step that the optimizer really took. L1 and
            group penalties then give exact zeros. The penalties must be penalize's own, and must
            not be in the loss.

    Returns:
        An optimizer of ``tf.compat.v1.train``; use it in place of the one that was passed.

    Raises:
        OptimizerError: this is no optimizer of ``tf.compat.v1.train``.
        ModeError: there is no such mode, or it cannot act with this optimizer.
    """
    if not isinstance(optimizer, v1.train.Optimizer):
        raise OptimizerError(
            f"regularized got a {type(optimizer).__name__}",
            "pass an optimizer of tf.compat.v1.train; for TensorFlow 2 and Keras optimizers add "
            "the penalty() of penalize.tensorflow.regularize(model, rules) to the loss",
        )
    if mode not in MODES:
        raise ModeError(f"there is no mode {mode!r}", f"expected one of {', '.join(MODES)}")
    if mode == "proximal":
        check_can_act(optimizer)
    return RegularizedOptimizer(optimizer, scope, plan, mode)


class RegularizedOptimizer(v1.train.Optimizer):  # type: ignore[misc, name-defined]
    """What :func:`regularized` returns. State, slots and updates are those of the optimizer."""

    def __init__(self, optimizer: Any, scope: str | None, plan: Plan | None, mode: str) -> None:
        super().__init__(optimizer._use_locking, f"Regularized{optimizer.get_name()}")
        self._optimizer = optimizer
        self._scope = scope
        self._plan = plan
        self._mode = mode

    def compute_gradients(
        self, loss: Any, var_list: Any = None, *args: Any, **kwargs: Any
    ) -> list[tuple[Any, Any]]:
        """Gradients of the loss with each declared penalty in it exactly once.

        Takes what the optimizer's own ``compute_gradients`` takes. In mode ``"proximal"``: those of
        the loss as it is, and zeros where a penalized variable has none.

        Raises:
            LossError: the loss is no tensor of a TensorFlow 1 graph, or ``grad_loss`` is given.
            PenaltyError: what stands in the collection is weights, and not a penalty of them.
            AppliedTwiceError: the loss contains a penalty in another way than once, such as with
                its strength multiplied again; the sentence has the audit's table.
        """
        if kwargs.get("grad_loss") is not None:
            raise LossError(
                "grad_loss weights the elements of the loss, so that a penalty has no one place",
                "pass the weighted sum as the loss",
            )
        if not isinstance(loss, tf.Tensor) or not hasattr(loss, "graph"):
            raise LossError(
                f"regularized(...) got a {type(loss).__name__} as the loss",
                "pass a tensor of a TensorFlow 1 graph; in TensorFlow 2 use "
                "penalize.tensorflow.regularize and plan.penalty()",
            )
        loss = self._with_penalties(loss, var_list)
        pairs = self._optimizer.compute_gradients(loss, var_list, *args, **kwargs)
        return [(self._present(gradient, v), v) for gradient, v in pairs]

    def _present(self, gradient: Any, variable: Any) -> Any:
        """Without a gradient the optimizer takes no step, and the proximal step has no size."""
        if gradient is None and self._mode == "proximal":
            return tf.zeros_like(variable)
        return gradient

    def _with_penalties(self, loss: Any, var_list: Any) -> Any:
        entries = self._declared(loss.graph, var_list)
        _check_are_penalties(entries)
        report = report_on(loss, entries)
        once = self._mode == "gradient"
        wrong = [row for row in report if not (row.is_missing or (row.ok and once))]
        if wrong:
            raise AppliedTwiceError(
                [row.name for row in wrong],
                "the loss",
                "regularized(...)",
                "Leave the penalties out of the loss, and they are applied once. The loss has them "
                f"so:\n{Report(wrong)}\nTo change a strength, change it where it is declared",
            )
        missing = [e.penalty() for e, row in zip(entries, report, strict=True) if row.is_missing]
        if not missing or not once:
            return loss
        with v1.name_scope("regularized"):
            # A loss with axes stands for the sum of its elements, as it does for tf.gradients; a
            # penalty that is broadcast to them would count as often as there are elements.
            penalty = tf.add_n([tf.cast(p, loss.dtype) for p in missing])
            return tf.reduce_sum(loss) + penalty

    def _declared(self, graph: Any, var_list: Any) -> list[Declared]:
        """What is declared for the variables that are updated."""
        if var_list is None:
            var_list = graph.get_collection(v1.GraphKeys.TRAINABLE_VARIABLES)
        updated = {variable.op for variable in tf.nest.flatten(var_list)}
        known: Sequence[Declared] = (
            collected(graph, self._scope) if self._plan is None else self._plan.targets()
        )
        return [entry for entry in known if entry.sources & updated]

    def apply_gradients(
        self, grads_and_vars: Any, global_step: Any = None, name: str | None = None
    ) -> Any:
        """As the optimizer's own; in mode ``"proximal"`` with the proximal step behind it.

        Raises:
            ModeError: the proximal step cannot act on a variable.
            NoProximalOperatorError: a regularizer has no exact prox under this optimizer.
        """
        pairs = list(grads_and_vars)
        if self._mode == "gradient":
            return self._optimizer.apply_gradients(pairs, global_step, name)
        declared = self._declared(v1.get_default_graph(), [variable for _, variable in pairs])
        targets = targets_of(declared, pairs, self._optimizer)
        update = self._optimizer.apply_gradients(pairs, global_step)
        return proximal_update(update, targets, self._optimizer, name)

    def get_slot(self, var: Any, name: str) -> Any:
        """As the optimizer's own."""
        return self._optimizer.get_slot(var, name)

    def get_slot_names(self) -> list[str]:
        """As the optimizer's own."""
        names: list[str] = self._optimizer.get_slot_names()
        return names

    def variables(self) -> list[Any]:
        """As the optimizer's own."""
        variables: list[Any] = self._optimizer.variables()
        return variables


def _check_are_penalties(entries: Sequence[Declared]) -> None:
    weights = [entry.name for entry in entries if not entry.is_penalty]
    if weights:
        raise PenaltyError(
            f"{some(weights)}: weights stand in the collection of penalties as they are",
            "scalars, such as l2_regularizer(0.1)(weights), or get_variable(regularizer=...)",
        )
