"""The plan of a Keras model, which is in force until it is detached."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from keras import ops

from penalize.errors import some
from penalize.keras.models import models_with, trace_again
from penalize.keras.modes import Change, Mode, Target, attribute_of
from penalize.keras.parameters import Weight, read
from penalize.parameters import Parameter
from penalize.plan import Plan as AnyPlan
from penalize.plan import Row, row_of
from penalize.regularizers.base import Regularizer
from penalize.rules import Decision


class Entry(NamedTuple):
    """One variable: its record, what was decided, and how to reach it."""

    parameter: Parameter
    decision: Decision
    weight: Weight
    regularizer: Regularizer | None
    """The decided one, with the words of its groups resolved to axes."""


class Plan(AnyPlan):
    """Rules resolved against a Keras model. Made by :func:`penalize.keras.regularize`.

    The rules are fixed; the model is looked at anew each time, so the rows tell what is frozen
    now, and show a variable that Keras has added since, as ``enable_lora`` does.
    """

    def __init__(self, model: Any, entries: Sequence[Entry], mode: Mode, place: str) -> None:
        self._model = model
        self._entries = {id(e.weight.variable): e for e in entries}
        self._mode = mode
        self._place = place
        self._changes: list[Change] = []

    @property
    def mode(self) -> str:
        """``"loss"`` or ``"proximal"``."""
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

    def _now(self) -> list[Entry]:
        """The entries for the model as it is now: one that Keras added has what stands on it."""
        entries = []
        for record, weight in read(self._model):
            planned = self._entries.get(id(weight.variable))
            if planned is not None:
                parameter = replace(planned.parameter, trainable=record.trainable, note=record.note)
                entries.append(planned._replace(parameter=parameter))
                continue
            declared = record.sites[0].declared
            found = None if declared is None else declared.rules[0].regularizer
            decision = Decision(found, "" if found is None else "Keras, after the plan was made")
            entries.append(Entry(record, decision, weight, found))
        return entries

    def _penalized(self) -> list[Target]:
        """What is penalized now: frozen variables are left out."""
        return [
            Target(e.parameter.name, e.weight, e.regularizer)
            for e in self._now()
            if e.regularizer is not None and e.parameter.trainable
        ]

    def penalty(self) -> Any:
        """Σ Ω(w): a scalar tensor of the backend, in float32 or wider, differentiable.

        For a training loop of your own that does not add ``model.losses``, where the penalties of
        ``mode="loss"`` are already. On JAX, call it inside a ``keras.StatelessScope`` that maps the
        variables to what you differentiate by.
        """
        total: Any = 0.0
        for target in self._penalized():
            total = total + target.regularizer(target.weight.variable)
        return ops.convert_to_tensor(total)

    def breakdown(self) -> dict[str, float]:
        """The penalty of each penalized variable by name, for logging. Waits for the device."""
        return {
            target.name: float(ops.convert_to_numpy(target.regularizer(target.weight.variable)))
            for target in self._penalized()
        }

    def __str__(self) -> str:
        text = super().__str__()
        unsaved = [t.name for t in self._penalized() if not _is_saved(t.weight)]
        if unsaved and self.mode == "loss":
            text += (
                f"\nnot saved with the model: {some(unsaved)}; make the plan again after loading"
            )
        return text

    # --- in force ---------------------------------------------------------------------------

    def apply(self, models: Iterable[Any]) -> None:
        """Put the plan in force, as ``regularize`` does. Leaves nothing behind if it fails."""
        try:
            for target in self.targets():
                variable = target.weight.variable
                held = Change(variable, _HELD_BY, getattr(variable, _HELD_BY, None), self)
                for change in (held, *self._mode.changes(self._model, target)):
                    self._changes.append(change)
                    change.make()
        except BaseException:
            self._undo()
            raise
        trace_again(models)

    def targets(self) -> list[Target]:
        """Everything with a regularizer, frozen or not."""
        return [
            Target(e.parameter.name, e.weight, e.regularizer)
            for e in self._entries.values()
            if e.regularizer is not None
        ]

    def detach(self) -> None:
        """Restore the regularizers and constraints that the model had. Does nothing twice.

        What somebody else has set since is left alone. Weights, optimizer state and iterations stay
        as they are.
        """
        if self._changes:
            self._undo()
            trace_again(models_with(e.weight.variable for e in self._entries.values()))

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
            for _, weight in read(self._model)
            if id(weight.variable) not in self._entries
            for owner in weight.owners
        ]


_HELD_BY = "_penalize_plan"
"""The attribute of a variable that names the plan in force on it. It also keeps the plan alive."""


def plan_on(variable: Any) -> Plan | None:
    """The plan that penalizes this variable, if one is in force."""
    plan = getattr(variable, _HELD_BY, None)
    return plan if isinstance(plan, Plan) and plan.in_force else None


def _is_saved(weight: Weight) -> bool:
    return all(owner.saved and attribute_of(owner) is not None for owner in weight.owners)
