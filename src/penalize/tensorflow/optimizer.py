"""``regularized``: an optimizer of TensorFlow 1 that applies declared penalties by itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from penalize.errors import LossError, ModeError, OptimizerError
from penalize.halfspace import AVERAGE, check_average
from penalize.tensorflow.audit import report_on
from penalize.tensorflow.checks import (
    check_are_known,
    check_are_penalties,
    check_loss,
    check_not_scaled,
    check_own_regularization,
    check_report,
    warn_of_standing_still,
)
from penalize.tensorflow.collection import collected
from penalize.tensorflow.declared import Declared
from penalize.tensorflow.graphs import origin_of_variable
from penalize.tensorflow.halfspace import (
    AroundUpdate,
    Remembered,
    begin,
    check_edits,
    check_targets,
    finish,
    remembered,
)
from penalize.tensorflow.plan import Plan
from penalize.tensorflow.proximal import proximal_update, set_by, steps_before, targets_of
from penalize.tensorflow.steps import step_size_of
from penalize.tensorflow.weights import Weight

v1 = tf.compat.v1

MODES = ("gradient", "proximal", "halfspace")


def regularized(
    optimizer: Any,
    scope: str | None = None,
    *,
    plan: Plan | None = None,
    mode: str = "gradient",
    average: float | None = None,
) -> RegularizedOptimizer:
    """The optimizer, with every declared penalty of the variables it updates applied once.

    The collection ``REGULARIZATION_LOSSES`` is filled by ``get_variable(regularizer=...)``, and no
    optimizer of TensorFlow reads it. This one does: ``minimize`` and ``compute_gradients`` measure
    which penalties the loss contains already (see :func:`audit`) and add those that are missing.

    What is declared inside of loops, branches and wrapped functions is found there. Inside of a
    ``tf.function`` it is in no collection, so its variables are refused: pass a plan of them.

    Where two networks share a graph, each optimizer takes the penalties of the variables that it
    updates (``var_list``), and leaves the other network's alone. An optimizer that scales the loss
    belongs inside: ``regularized(LossScaleOptimizer(...))``, else the penalty would be scaled back
    and not up. ``audit(optimizer.total_loss(loss))`` shows what is minimized. Two losses that are
    differentiated apart, and their gradients added, have the penalties twice.

    Args:
        optimizer: any optimizer of ``tf.compat.v1.train``.
        scope: only what is declared in this name or variable scope or below; ``"s"`` does not mean
            ``"s2"``.
        plan: take the penalties of this plan, and not those of the collection.
        mode: ``"gradient"``, by the loss; or ``"proximal"``: after each update
            w ← argmin_u ½‖u − w‖² + step·Ω(u), with the step that the optimizer really took. L1 and
            group penalties then give exact zeros. The penalties must be penalize's own, and must
            not be in the loss. ``"halfspace"`` gives exact zeros under any optimizer, and the right
            ones on mini-batches: what is 0 stays until the running average of the data's gradient
            overcomes the penalty (:mod:`penalize.halfspace`).
        average: of ``"halfspace"``, how much of the average stays in a step, 0.999 by default. It
            is kept in variables that a ``Saver`` saves.

    Returns:
        An optimizer of ``tf.compat.v1.train``; use it in place of the one that was passed.

    Raises:
        OptimizerError: this is no optimizer of ``tf.compat.v1.train``, no plan or no scope.
        ModeError: there is no such mode, or it cannot act with this optimizer; or a scope and a
            plan are given, which knows its own variables.
    """
    if not isinstance(optimizer, v1.train.Optimizer):
        raise OptimizerError(
            f"regularized got a {type(optimizer).__name__}",
            "pass an optimizer of tf.compat.v1.train; for TensorFlow 2 and Keras optimizers add "
            "the penalty() of penalize.tensorflow.regularize(model, rules) to the loss",
        )
    if plan is not None and not isinstance(plan, Plan):
        raise OptimizerError(
            f"regularized got a {type(plan).__name__} as the plan",
            "pass what penalize.tensorflow.regularize(variables, rules) returns",
        )
    if not isinstance(scope, str | v1.VariableScope | None):
        raise OptimizerError(
            f"regularized got a {type(scope).__name__} as the scope",
            "pass the name of a scope, or what variable_scope gives; rules go into a plan",
        )
    if mode not in MODES:
        raise ModeError(f"there is no mode {mode!r}", f"expected one of {', '.join(MODES)}")
    if plan is not None and scope is not None:
        raise ModeError(
            f"the scope {scope!r} is of the collection, and a plan was given in its place",
            "say in the rules what is penalized",
        )
    if average is not None and mode != "halfspace":
        raise ModeError(
            f"average={average!r} is an option of mode='halfspace', and this is mode={mode!r}",
            "leave it out",
        )
    if mode == "proximal":
        step_size_of(optimizer)  # or refuses: its step is not known
    if mode == "halfspace":
        check_edits(optimizer)
    kept = check_average(AVERAGE if average is None else average)
    return RegularizedOptimizer(optimizer, scope, plan, mode, kept)


class RegularizedOptimizer(v1.train.Optimizer):  # type: ignore[misc, name-defined]
    """What :func:`regularized` returns. State, slots and updates are those of the optimizer."""

    def __init__(
        self, optimizer: Any, scope: str | None, plan: Plan | None, mode: str, average: float
    ) -> None:
        super().__init__(optimizer._use_locking, f"Regularized{optimizer.get_name()}")
        self._optimizer = optimizer
        self._scope = scope
        self._plan = plan
        self._mode = mode
        self._average = average
        self._kept: dict[tuple[Any, str], Remembered] = {}
        """What half-space steps remember of each weight, by its graph and name."""

    def compute_gradients(  # noqa: PLR0917 - TensorFlow's order
        self,
        loss: Any,
        var_list: Any = None,
        gate_gradients: int = v1.train.Optimizer.GATE_OP,
        aggregation_method: Any = None,
        colocate_gradients_with_ops: bool = False,
        grad_loss: Any = None,
    ) -> list[tuple[Any, Any]]:
        """Gradients of :meth:`total_loss`, by the optimizer's own ``compute_gradients``.

        In the other modes: with zeros where a penalized variable has none.

        Raises:
            LossError, PenaltyError, AppliedTwiceError: as :meth:`total_loss`; also a LossError if
                ``grad_loss`` is given.
            OptimizerError: a loss-scale optimizer stands around this one.
        """
        # A loss-scale optimizer calls this from its own compute_gradients; nothing else tells.
        check_not_scaled(sys._getframe(1).f_locals.get("self"))
        if grad_loss is not None:
            raise LossError(
                "grad_loss weights the elements of the loss, so that a penalty has no one place",
                "pass the weighted sum as the loss",
            )
        pairs = self._optimizer.compute_gradients(
            self.total_loss(loss, var_list),
            var_list,
            gate_gradients,
            aggregation_method,
            colocate_gradients_with_ops,
        )
        return list(pairs) if self._mode == "gradient" else self._with_zeros(pairs, loss.graph)

    def _with_zeros(self, pairs: Sequence[tuple[Any, Any]], graph: Any) -> list[tuple[Any, Any]]:
        """The pairs, with zeros for missing gradients: the optimizer takes no step without one."""
        penalized = {
            variable.ref()
            for entry in self._declared(graph, [variable for _, variable in pairs])
            for variable in entry.variables
        }
        return [
            (tf.zeros_like(v) if g is None and v.ref() in penalized else g, v) for g, v in pairs
        ]

    def total_loss(self, loss: Any, var_list: Any = None) -> Any:
        """The loss with each declared penalty in it exactly once: what is minimized.

        In the other modes it is the loss as it is, and must contain none of them.

        Args:
            loss: a tensor of a TensorFlow 1 graph.
            var_list: the variables that will be updated; all trainable ones if None.

        Raises:
            LossError: the loss is no tensor of a TensorFlow 1 graph, it is that of one of several
                replicas, or what it contains of a penalty cannot be measured; or a variable was
                made inside of a ``tf.function``, and what is declared on it is not known.
            PenaltyError: what stands in the collection is weights, and not a penalty of them, or
                was computed inside of a function, such as the body of a loop, and not declared.
            NoMatchError: nothing is declared in the scope.
            ModelError: a plan is one of variables that are not of this graph.
            OptimizerError: ``var_list`` has something else than variables in it.
            AppliedTwiceError: the loss contains a penalty in another way than once, such as with
                its strength multiplied again; the sentence has the audit's table.
        """
        check_loss(loss)
        entries = self._declared(loss.graph, var_list)
        check_are_penalties(entries, loss.graph)
        if self._plan is None:
            check_are_known(entries, _listed(var_list, loss.graph), loss.graph)
        if self._mode == "gradient":
            for entry in entries:
                if entry.regularizer is not None:
                    entry.regularizer.check_gradient(repr(entry.name))
        check_own_regularization(self._optimizer, entries)
        report = report_on(loss, entries)
        once = self._mode == "gradient"
        check_report(report, once)
        rows = zip(entries, report.declared, strict=True)
        missing = [entry.penalty() for entry, row in rows if row.is_missing]
        if not missing or not once:
            return loss
        with v1.name_scope("regularized"):
            # A loss with axes stands for the sum of its elements, as it does for tf.gradients; a
            # penalty that is broadcast to them would count as often as there are elements.
            penalty = tf.add_n([tf.cast(p, loss.dtype) for p in missing])
            return tf.reduce_sum(loss) + penalty

    def _declared(self, graph: Any, var_list: Any) -> list[Declared]:
        """What is declared for the variables that are updated, or for no variable that is known."""
        updated = {origin_of_variable(variable) for variable in _listed(var_list, graph)}
        known: Sequence[Declared] = (
            collected(graph, self._scope) if self._plan is None else self._plan.targets()
        )
        return [e for e in known if not e.is_penalty or e.concerns(updated, graph)]

    def apply_gradients(
        self, grads_and_vars: Any, global_step: Any = None, name: str | None = None
    ) -> Any:
        """The optimizer's own method; with the proximal or half-space step of those modes.

        Raises:
            ModeError: that step cannot act on a variable.
            NoProximalOperatorError: a regularizer has no exact prox under this optimizer.
            NoKinkError: no penalty makes zeros in mode ``"halfspace"``, or it is not known where.

        Warns:
            NeverAppliedWarning: a strength follows the global step, which nothing advances.
        """
        pairs = list(grads_and_vars)
        if self._mode == "gradient" and global_step is not None:
            return self._optimizer.apply_gradients(pairs, global_step, name)
        graph = v1.get_default_graph()
        declared = self._declared(graph, [variable for _, variable in pairs])
        if global_step is None:
            warn_of_standing_still(declared)
        if self._mode == "gradient":
            return self._optimizer.apply_gradients(pairs, global_step, name)
        if self._mode == "proximal":
            targets = targets_of(declared, pairs, self._optimizer)
        else:
            targets = set_by(declared, pairs, "half-space")
            check_targets(targets)
        counted = steps_before(targets)
        steps: list[AroundUpdate] = []
        with tf.control_dependencies([] if counted is None else [counted]):
            if self._mode == "halfspace":
                kept = {weight.name: self._remembered(weight, graph) for weight, _ in targets}
                pairs, steps = begin(targets, pairs, kept, self._average, counted)
            update = self._optimizer.apply_gradients(pairs, global_step)
        if self._mode == "proximal":
            whole = proximal_update(update, targets, self._optimizer, counted, name)
        else:
            whole = finish(update, steps, name)
        _replace(graph.get_collection_ref(v1.GraphKeys.TRAIN_OP), update, whole)
        return whole

    def _remembered(self, weight: Weight, graph: Any) -> Remembered:
        key = graph, weight.name
        if key not in self._kept:
            with tf.init_scope():
                self._kept[key] = remembered(weight)
        return self._kept[key]

    def get_slot(self, var: Any, name: str) -> Any:
        """The optimizer's own slot of a variable."""
        return self._optimizer.get_slot(var, name)

    def get_slot_names(self) -> list[str]:
        """The names of the optimizer's own slots."""
        names: list[str] = self._optimizer.get_slot_names()
        return names

    def variables(self) -> list[Any]:
        """The optimizer's own variables, and the averages of mode ``"halfspace"``."""
        variables: list[Any] = list(self._optimizer.variables())
        return [*variables, *(held for kept in self._kept.values() for held in kept)]

    def __getattr__(self, name: str) -> Any:
        """An attribute that only some optimizers have, such as ``make_session_run_hook``."""
        if name == "_optimizer":
            raise AttributeError(name)
        return getattr(self._optimizer, name)


def _listed(var_list: Any, graph: Any) -> list[Any]:
    """The variables that will be updated."""
    if var_list is None:
        var_list = graph.get_collection(v1.GraphKeys.TRAINABLE_VARIABLES)
    listed: list[Any] = tf.nest.flatten(var_list)
    for variable in listed:
        if not (isinstance(variable, tf.Variable) or tf.is_tensor(variable)):
            raise OptimizerError(
                f"var_list has a {type(variable).__name__} in it",
                "pass variables; of a partitioned one its shards, as list(variable) gives them",
            )
    return listed


def _replace(collection: list[Any], old: Any, new: Any) -> None:
    collection[:] = [new if item is old else item for item in collection]
