"""The plan of TensorFlow variables, and how it acts: as a term of the loss."""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import tensorflow as tf

from penalize.errors import LossError, ModelError, NeverAppliedWarning, PenalizeError, some
from penalize.names import unique
from penalize.parameters import Parameter
from penalize.plan import LivePlan, PenalizedNow, Row, describe, row_of
from penalize.probes import Probed
from penalize.regularizers.base import Regularizer
from penalize.rules import Decision
from penalize.tensorflow.declared import Declared, global_step
from penalize.tensorflow.graphs import origin_of_variable, results_of, why_not_here
from penalize.tensorflow.parameters import read, variables_in
from penalize.tensorflow.weights import Weight, opened

v1 = tf.compat.v1


class PlannedParameter(NamedTuple):
    """One parameter: its record, what was decided, and how to reach it."""

    parameter: Parameter
    decision: Decision
    weight: Weight
    regularizer: Regularizer | None


class Plan(Probed, LivePlan):
    """Rules resolved against variables. Made by :func:`penalize.tensorflow.regularize`.

    The rules are fixed; the variables are read each time. In a traced ``tf.function`` and in a
    graph of TensorFlow 1, what is frozen is decided when the graph is made.
    """

    def __init__(self, entries: Sequence[PlannedParameter], model: Any) -> None:
        self._entries = tuple(entries)
        self._model = model
        self._seen = variables_in(model)
        held = set(map(id, self._seen))
        self._own = [e for e in entries if id(e.weight.first) in held]
        scopes = unique(re.sub(r"[^\w.]", "_", e.parameter.name, flags=re.ASCII) for e in entries)
        scope = f"penalize_{next(_number)}"
        self._prefixes = [f"{scope}/{name}/" for name in scopes]
        self._shown: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()

    def __getstate__(self) -> dict[str, Any]:
        """All but what it has made in graphs, which are of this process."""
        return {**vars(self), "_shown": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _shown=WeakKeyDictionary())

    @property
    def rows(self) -> tuple[Row, ...]:
        """One row per parameter, in the model's order; the rows tell what is frozen now."""
        return tuple(
            row_of(e.parameter, e.decision, e.weight.shape, e.weight.trainable)
            for e in self._entries
        )

    def targets(self) -> list[PlannedPenalty]:
        """What is penalized now: frozen variables are left out.

        Raises:
            ModelError: a variable of the model was replaced by another one, or taken away.
        """
        held = set(map(id, variables_in(self._model)))
        lost = [e.parameter.name for e in self._own if id(e.weight.first) not in held]
        if lost:
            raise ModelError(
                f"{some(lost)} of this {type(self._model).__name__} was replaced after the plan "
                "was made, or taken away",
                "plan the model as it is now",
            )
        return [
            PlannedPenalty(e.parameter.name, e.weight, e.regularizer, prefix)
            for e, prefix in zip(self._entries, self._prefixes, strict=True)
            if e.regularizer is not None and e.weight.trainable
        ]

    def penalized(self) -> list[tuple[str, Any]]:
        """What is penalized now: the names of rows, each with its variable or first shard."""
        return [(target.name, target.variables[0]) for target in self.targets()]

    def _warn_of_newcomers(self) -> None:
        """A warning, once, of what came to the model later: no rule reaches it."""
        seen = set(map(id, self._seen))
        new = {id(v): v for v in variables_in(self._model) if id(v) not in seen}
        if not new:
            return
        self._seen += new.values()
        names = [p.name for p, w in read(self._model) if p.trainable and id(w.first) in new]
        if names:
            warnings.warn(
                f"{some(names)} came to the {type(self._model).__name__} after it was planned, so "
                "no rule reaches what is new. Plan the model as it is now.",
                NeverAppliedWarning,
                stacklevel=3,
            )

    def penalty(self, *, at: Any = None) -> tf.Tensor:
        """Σ Ω(w): a scalar to be added to the loss, in float32 or wider.

        Works eagerly, under ``tf.GradientTape``, in ``tf.function`` and in graphs of TensorFlow 1.

        In a replica of a ``tf.distribute`` strategy it is Σ Ω(w) divided by the number of replicas,
        since the gradients of the replicas are summed: it belongs beside
        ``tf.nn.compute_average_loss``, and gives the update that a single device gives.

        Args:
            at: the step of training, where a strength follows a schedule, such as
                ``optimizer.iterations``; in a graph of TensorFlow 1 the global step by default.

        Raises:
            ModelError: a variable of the model was replaced after the plan was made, or is one of
                another graph.
            NoStepError: a strength follows a schedule, and the step is not known.
            NoGradientError: a constraint is planned, which no loss can apply.
            LossError: it is audited in one of several replicas.

        Warns:
            NeverAppliedWarning: a trainable variable came to the model after it was planned.
        """
        replica = tf.distribute.get_replica_context()
        replicas = 1 if replica is None else replica.num_replicas_in_sync
        if self._probe is not None and replicas > 1:
            raise LossError(
                "a loss was audited that runs in replicas, whose tapes are their own",
                "audit the loss of one replica, outside of strategy.run",
            )
        targets = self.targets()
        self._warn_of_newcomers()
        total = tf.zeros(())
        for target in targets:
            target.regularizer.check_gradient(repr(target.name))
            value = self.seen(target.name, target.penalty(at))
            dtype = max(total.dtype, value.dtype, key=lambda kind: kind.size)
            total = tf.cast(total, dtype) + tf.cast(value, dtype)
        return total if replicas == 1 else total / replicas

    def breakdown(self, *, at: Any = None) -> dict[str, float]:
        """The penalty of each penalized parameter by name, for logging.

        In a graph of TensorFlow 1 the values are those of the default session.

        Args:
            at: as for :meth:`penalty`.

        Raises:
            NoStepError: as for :meth:`penalty`.
            ModelError: the variables are those of a graph, and there is no default session.
        """
        targets = self.targets()
        if tf.executing_eagerly():
            return {each.name: each.penalty for each in self.penalized_now(at=at)}
        session = v1.get_default_session()
        if session is None:
            raise ModelError(
                "breakdown() needs the values of variables in a graph, and there is no session",
                'call it inside "with session.as_default():"',
            )
        with session.graph.as_default():
            shown = self._shown.setdefault(session.graph, {})
            # What was asked for at one step is not what is asked for at another.
            steady = [t for t in targets if at is None or not t.regularizer.scheduled]
            asked = {
                t.name: _at(t.regularizer, at)(t.weight.read()) for t in targets if t not in steady
            }
            for t in steady:
                if t.name not in shown:
                    shown[t.name] = _at(t.regularizer, at)(t.weight.read())
        values = session.run([{**shown, **asked}[t.name] for t in targets])
        return {t.name: float(v) for t, v in zip(targets, values, strict=True)}

    def penalized_now(self, params: Any = None, *, at: Any = None) -> list[PenalizedNow]:
        """What is penalized, with the values that it has now.

        Raises:
            ModelError: the variables are those of a graph of TensorFlow 1.
        """
        if not tf.executing_eagerly():
            raise ModelError(
                "the values of variables in a graph are known to its session alone",
                'call plan.breakdown() inside "with session.as_default():"',
            )
        found = []
        for target in self.targets():
            w, regularizer = target.weight.read(), _at(target.regularizer, at)
            found.append(PenalizedNow(target.name, w, regularizer, float(regularizer(w))))
        return found

    def __str__(self) -> str:
        try:
            penalties = self.breakdown()
        except (PenalizeError, tf.errors.OpError, RuntimeError, ValueError):
            penalties = {}  # no session, not initialized, a finalized graph: printing must not fail
        return describe(self.rows, penalties)


@dataclass(frozen=True, eq=False)
class PlannedPenalty:
    """One weight and its regularizer."""

    name: str
    weight: Weight
    regularizer: Regularizer
    prefix: str
    """The name scope of its operations, by which a graph finds them again in a loss."""

    is_penalty = True

    @property
    def variables(self) -> tuple[Any, ...]:
        """The variables that it penalizes."""
        return self.weight.variables

    def penalty(self, at: Any = None) -> Any:
        """The penalty as a tensor.

        Raises:
            ModelError: its variables are not those of the graph that is open now.
        """
        self._check_is_here()
        with v1.name_scope(self.prefix):
            return _at(self.regularizer, at)(self.weight.read())

    def concerns(self, updated: set[Any], graph: Any) -> bool:
        """Whether one of these variables of a graph is among its own.

        Raises:
            ModelError: its variables are not of this graph.
        """
        with graph.as_default():
            self._check_is_here()
        return not updated.isdisjoint(map(origin_of_variable, map(opened, self.variables)))

    def _check_is_here(self) -> None:
        why_not = why_not_here(self.weight.first)
        if why_not:
            raise ModelError(
                f"{self.name!r} {why_not}",
                "plan the variables of the graph, such as tf.compat.v1.trainable_variables(), and "
                "use the plan there",
            )

    def is_within(self, graph: Any) -> bool:
        """A plan's penalty is made anew wherever it is asked for."""
        return False

    def uses(self, loss: Any, ops: set[Any]) -> list[Any]:
        """The tensors that bring this penalty into the loss, whose ancestors are ops."""
        return results_of(self.prefix, ops, loss)

    def takes_in(self, other: Declared) -> bool:
        """A plan's penalty is that of a weight, and of nothing else."""
        return False


def _at(regularizer: Regularizer, step: Any) -> Regularizer:
    """The regularizer at a step; in a graph of TensorFlow 1 at the global one by default."""
    if not regularizer.scheduled:
        return regularizer
    now = global_step() if step is None else step
    return regularizer if now is None else regularizer.at(now)


_number = itertools.count(1)
