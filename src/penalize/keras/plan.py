"""The plan of a Keras model, which is in force until it is detached."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from keras import ops

from penalize.errors import ModelError, NeverAppliedWarning, some
from penalize.keras.acting import at_step_of
from penalize.keras.checks import check_weight_decay
from penalize.keras.hooks import hook, unhook
from penalize.keras.models import (
    bring_back_values,
    has_value,
    models_in,
    models_with,
    trace_again,
    weakly,
)
from penalize.keras.modes import Change, Mode, PenalizedVariable
from penalize.keras.parameters import HeldVariable, records
from penalize.keras.saving import remark_on_saving
from penalize.keras.trainers import training
from penalize.parameters import Parameter
from penalize.plan import LivePlan, PenalizedNow, Row, row_of
from penalize.probes import Probed
from penalize.regularizers.base import Regularizer
from penalize.rules import Decision


class PlannedVariable(NamedTuple):
    """One variable: its record, what was decided, and how to reach it."""

    parameter: Parameter
    decision: Decision
    weight: HeldVariable
    regularizer: Regularizer | None
    """The decided one, with the words of its groups resolved to axes."""

    def scaled(self, factor: float) -> PlannedVariable:
        """The same with its strength multiplied by a number."""
        decided, regularizer = self.decision.regularizer, self.regularizer
        if decided is None or regularizer is None:
            return self
        decision = replace(self.decision, regularizer=factor * decided)
        return self._replace(decision=decision, regularizer=factor * regularizer)


class Plan(Probed, LivePlan):
    """Rules resolved against a Keras model. Made by :func:`penalize.keras.regularize`.

    The rules are fixed; the model is looked at anew each time, so the rows tell what is frozen
    now, and show a variable that Keras has added since, as ``enable_lora`` does.
    """

    def __init__(
        self,
        model: Any,
        entries: Sequence[PlannedVariable],
        mode: Mode,
        place: str,
        models: Callable[[], list[Any]],
    ) -> None:
        self._model = model
        self._entries = {id(e.weight.variable): e for e in entries}
        self._mode = mode
        self._place = place
        self._models = models  # that held the variables when the plan was made, if they still live
        self._changes: list[Change] = []
        self._told: list[str] = []  # newcomers that were warned of

    @property
    def model(self) -> Any:
        """What was planned."""
        return self._model

    @property
    def mode(self) -> str:
        """``"loss"``, ``"proximal"`` or ``"halfspace"``."""
        return self._mode.name

    @property
    def in_force(self) -> bool:
        """Whether the plan acts: from :func:`~penalize.keras.regularize` to :meth:`detach`."""
        return bool(self._changes)

    @property
    def place(self) -> str:
        """The file and line where the plan was made."""
        return self._place

    @property
    def rows(self) -> tuple[Row, ...]:
        """One row per variable, in the model's order; the rows tell what is frozen now."""
        return tuple(
            row_of(e.parameter, e.decision, tuple(e.weight.variable.shape), e.parameter.trainable)
            for e in self._now()
        )

    def _now(self) -> list[PlannedVariable]:
        """The entries for the model as it is now: one that Keras added has what stands on it."""
        entries = []
        for record, weight in records(self._model):
            planned = self._entries.get(id(weight.variable))
            if planned is not None:
                parameter = replace(planned.parameter, trainable=record.trainable, note=record.note)
                entries.append(planned._replace(parameter=parameter))
                continue
            declared = record.sites[0].declared
            found = None if declared is None else declared.rules[0].regularizer
            decision = Decision(found, "" if found is None else "Keras, after the plan was made")
            entries.append(PlannedVariable(record, decision, weight, found))
        return entries

    def _newcomers(self) -> list[str]:
        """What a new plan might penalize: trained, of a role that is, and declared nowhere."""
        roles = {e.parameter.role for e in self._entries.values() if e.regularizer is not None}
        return [
            e.parameter.name
            for e in self._now()
            if id(e.weight.variable) not in self._entries
            and e.regularizer is None
            and e.parameter.trainable
            and e.parameter.role in roles
        ]

    def _penalized(self) -> list[PenalizedVariable]:
        """What is penalized now: frozen variables are left out."""
        return [
            PenalizedVariable(e.parameter.name, e.weight, e.regularizer)
            for e in self._now()
            if e.regularizer is not None and e.parameter.trainable
        ]

    def penalized(self) -> list[tuple[str, Any]]:
        """What is penalized now: the names of rows, each with its variable."""
        return [(target.name, target.weight.variable) for target in self._penalized()]

    def penalty(self, *, at: Any = None) -> Any:
        """Σ Ω(w): a scalar tensor of the backend, in float32 or wider.

        With ``mode="loss"`` it is differentiable, for a training loop of your own that does not add
        ``model.losses``, where the penalties are already. On JAX, call it inside a
        ``keras.StatelessScope`` that maps the variables to what you differentiate by. With
        ``mode="proximal"`` it is a number to look at, without a gradient: the optimizer's step
        applies the penalty, and a loss that contains this does not apply it again.

        Args:
            at: the step of training, where a strength follows a schedule; by default the one that
                the model's optimizer has come to.

        Raises:
            ModelError: see :meth:`breakdown`.
            NoStepError: a strength follows a schedule, and the model has no optimizer.
        """
        total: Any = 0.0
        for target in self._readable():
            value = at_step_of(self._model, target.regularizer, at)(target.weight.variable)
            total = total + self.seen(target.name, value)
        total = ops.convert_to_tensor(total)
        return total if self.mode == "loss" else ops.stop_gradient(total)

    def breakdown(self, *, at: Any = None) -> dict[str, float]:
        """The penalty of each penalized variable by name, for logging. Waits for the device.

        In a callback too: while ``fit`` trains on JAX, it keeps the values elsewhere, and is told
        here to put them back into the variables.

        Raises:
            ModelError: a variable has no value now, since a model that is not known here trains it.
        """
        return {each.name: each.penalty for each in self.penalized_now(at=at)}

    def penalized_now(self, params: Any = None, *, at: Any = None) -> list[PenalizedNow]:
        """What is penalized, with the values that it has now.

        Raises:
            ModelError: see :meth:`breakdown`.
        """
        found = []
        for target in self._readable():
            w = ops.stop_gradient(ops.convert_to_tensor(target.weight.variable))
            regularizer = at_step_of(self._model, target.regularizer, at)
            penalty = float(ops.convert_to_numpy(regularizer(w)))
            found.append(PenalizedNow(target.name, w, regularizer, penalty))
        return found

    def _readable(self) -> list[PenalizedVariable]:
        targets = self._penalized()
        if not all(has_value(t.weight.variable) for t in targets):
            bring_back_values(self._models())
        lost = [t.name for t in targets if not has_value(t.weight.variable)]
        if lost:
            raise ModelError(
                f"{some(lost)} has no value now: on JAX, a model keeps the values of its variables "
                "to itself while it trains, and an error in its fit loses them",
                "in a callback call self.model.jax_state_sync() first; after an error load or set "
                "the weights again",
            )
        return targets

    def __str__(self) -> str:
        present = {id(weight.variable) for _, weight in records(self._model)}
        gone = [t.name for t in self.targets() if id(t.weight.variable) not in present]
        came = self._newcomers()
        remarks = [
            f"no longer in the model: {some(gone)}" if gone else "",
            f"came after the plan was made: {some(came)}; make it again" if came else "",
            remark_on_saving(self.mode, self._penalized()) if self.in_force else "",
        ]
        return "\n".join([super().__str__(), *filter(None, remarks)])

    # --- in force ---------------------------------------------------------------------------

    def apply(self) -> None:
        """Put the plan in force, as ``regularize`` does. Leaves nothing behind if it fails."""
        check_weight_decay(self._models, self.targets())
        try:
            for target in self.targets():
                variable = target.weight.variable
                held = Change(variable, _HELD_BY, getattr(variable, _HELD_BY, None), self)
                look = partial(self._look, target)
                for change in (held, *self._mode.changes(self._model, target, look)):
                    self._changes.append(change)
                    change.make()
        except BaseException:
            self._undo()
            raise
        trace_again(self._models())
        hook(self._models(), plan_on)

    def put_on(self, model: Any, origin: Any) -> Plan:
        """The same penalties, on a copy of a model that has the variables. It is in force.

        Raises:
            ModelError: it has other variables than its origin.
            AppliedTwiceError, ModeError: as for :func:`~penalize.keras.regularize`.
        """
        pairs = list(zip(records(origin), records(model), strict=False))
        if [p.shape for p, _ in records(origin)] != [p.shape for p, _ in records(model)]:
            raise ModelError("the copy has other variables than the model", "plan it anew")
        entries = [
            PlannedVariable(parameter, e.decision, weight, e.regularizer)
            for (_, old), (parameter, weight) in pairs
            if (e := self._entries.get(id(old.variable))) is not None
        ]
        new = Plan(model, entries, self._mode, self._place, weakly(models_in(model)))
        self._mode.check(model, new.targets())
        new.apply()
        for target, copied in zip(self.targets(), new.targets(), strict=True):
            self._mode.carry(self._model, target, model, copied)
        return new

    def scaled(self, factor: float) -> Plan:
        """A plan of the same model with every strength multiplied by a number. It is not in force.

        To put it in force, :meth:`detach` this one, and call its :meth:`apply`.

        Raises:
            StrengthError: the factor, or a strength times it, is not a finite number ≥ 0.
        """
        entries = [entry.scaled(factor) for entry in self._entries.values()]
        return Plan(self._model, entries, self._mode, self._place, self._models)

    def variables(self) -> dict[str, Any]:
        """The variables of its rows by name."""
        return {e.parameter.name: e.weight.variable for e in self._entries.values()}

    def look(self, trainer: Any) -> None:
        """Raise a sentence if the plan cannot act, or not once, as a model is about to train.

        And warn of what no rule was asked about, since it came after the plan.
        """
        came = self._newcomers()
        if came and came != self._told:
            self._told = came
            warnings.warn(
                f"{some(came)} came to the model after the plan of {self._place} was made, and is "
                "not penalized by it. Call detach(), and plan the model as it is now.",
                NeverAppliedWarning,
                stacklevel=4,
            )
        trained = {id(variable) for variable in trainer.trainable_variables}
        for target in self._penalized():
            if id(target.weight.variable) in trained:
                self._look(target, trainer)

    def _look(self, target: PenalizedVariable, trainer: Any = None) -> None:
        """The same of one target, in a step too, where the trainer is looked for."""
        if trainer is None:
            trainer = training()
        # It may be one that was built around the variables since.
        others = [] if trainer is None else [trainer]
        check_weight_decay(lambda: [*self._models(), *others], [target])
        if trainer is not None:
            self._mode.look(self._model, target, trainer)

    def targets(self) -> list[PenalizedVariable]:
        """Everything with a regularizer, frozen or not."""
        return [
            PenalizedVariable(e.parameter.name, e.weight, e.regularizer)
            for e in self._entries.values()
            if e.regularizer is not None
        ]

    def detach(self) -> None:
        """Restore the regularizers and constraints that the model had. Does nothing twice.

        What somebody else has set since is left alone. Weights, optimizer state and iterations stay
        as they are.
        """
        if self._changes:
            variables = [e.weight.variable for e in self._entries.values()]
            self._leave(models_with(self._model, variables))

    def leave(self) -> None:
        """The same, without looking for models that were built around the variables since."""
        if self._changes:
            self._leave(self._models())

    def _leave(self, models: list[Any]) -> None:
        self._undo()
        trace_again(models)
        unhook(models, plan_on)

    def _undo(self) -> None:
        ours = {(id(c.holder), id(c.now)): c.before for c in self._changes}
        for variable, layer in self._added():
            # Keras made it from the layer's attribute while the plan stood there.
            key = id(layer), id(variable.regularizer)
            if key in ours:
                variable.regularizer = ours[key]
        while self._changes:
            self._changes.pop().undo()

    def _added(self) -> list[tuple[Any, Any]]:
        """Variables that the model did not have when the plan was made, with their layers."""
        return [
            (weight.variable, owner.layer)
            for _, weight in records(self._model)
            if id(weight.variable) not in self._entries
            for owner in weight.owners
        ]


_HELD_BY = "_penalize_plan"
"""The attribute of a variable that names the plan in force on it. It also keeps the plan alive."""


def plan_on(variable: Any) -> Plan | None:
    """The plan that penalizes this variable, if one is in force."""
    plan = getattr(variable, _HELD_BY, None)
    return plan if isinstance(plan, Plan) and plan.in_force else None
