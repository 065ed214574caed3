"""What a plan knows of its model: the weights, what penalizes each, and the number of steps."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple, Self

import torch
from torch import nn
from torch.optim import Optimizer

from penalize.errors import NeverAppliedWarning, some
from penalize.parameters import Parameter
from penalize.plan import LivePlan, PenalizedNow, Row, row_of
from penalize.regularizers.base import Regularizer, described
from penalize.rules import Decision
from penalize.torch import doors
from penalize.torch.acting.state import check_same, state_of
from penalize.torch.applied import Applied
from penalize.torch.clock import Group
from penalize.torch.model.bindings import Binding, trainable
from penalize.torch.model.parameters import read
from penalize.torch.model.targets import Target, doubled, parameters_behind
from penalize.torch.outputs.activities import Activities
from penalize.torch.outputs.rules import Activity


class PlannedWeight(NamedTuple):
    """One weight: its record, what was decided, and how to reach it."""

    parameter: Parameter
    decision: Decision
    binding: Binding
    regularizer: Regularizer | None
    """The decided one, with the words of its groups resolved to axes."""

    together: tuple[str, ...] = ()
    """The groups that span parameters which it is in."""

    def row(self) -> Row:
        """What the plan says of it, as it is now."""
        shape, trains = self.binding.shape(), trainable(self.binding)
        return row_of(self.parameter, self.decision, shape, trains, self.together)

    def scaled(self, factor: float) -> PlannedWeight:
        """The same with its strength multiplied by a number."""
        decided, regularizer = self.decision.regularizer, self.regularizer
        if decided is None or regularizer is None:
            return self
        decision = replace(self.decision, regularizer=factor * decided)
        return self._replace(decision=decision, regularizer=factor * regularizer)


class PlannedModel(LivePlan):
    """Rules resolved against a PyTorch model.

    The rules are fixed; the weights are read through the model's modules each time, so a plan
    follows freezing, moving and replaced parameters.
    """

    def __init__(
        self,
        weights: Sequence[PlannedWeight],
        model: nn.Module,
        activities: Activities | None = None,
        groups: Sequence[PlannedWeight] = (),
    ) -> None:
        self.model = model
        """What was planned, for an audit of it."""

        self.weights = tuple(weights)
        self.groups = tuple(groups)
        """What spans several of the weights."""

        self._activities = Activities() if activities is None else activities
        self._begin(steps=0)

    def _begin(self, steps: int) -> None:
        self.all_targets = tuple(
            Target(each.parameter.name, each.binding, each.regularizer)
            for each in (*self.weights, *self.groups)
            if each.regularizer is not None
        )
        """Whatever is penalized, frozen parameters too."""

        self._newcomers: set[str] = set()
        regularizers = [target.regularizer for target in self.all_targets]
        self.applied = Applied(
            steps_before=steps,
            scheduled=self._activities.scheduled or any(r.scheduled for r in regularizers),
            has_outputs=bool(self._activities.rows),
        )
        """How it is applied, and for how many steps."""

        self._activities = self._activities.adopted_by(self, self.applied.tensor)
        doors.enter_plan(self)

    # A copy is the plan of the copied model; what acts on the original does not act on it.

    def __getstate__(self) -> dict[str, Any]:
        names = ("model", "weights", "groups", "_activities")
        kept = {name: getattr(self, name) for name in names}
        return {**kept, "steps": self.steps}

    def __setstate__(self, state: dict[str, Any]) -> None:
        steps = state.pop("steps")
        self.__dict__.update(state)
        self._begin(steps)

    @property
    def rows(self) -> tuple[Row, ...]:
        """One row per parameter, in the model's order; the rows tell what is frozen now."""
        return tuple(each.row() for each in self.weights)

    @property
    def together(self) -> tuple[Row, ...]:
        """One row for each group of units that spans parameters; their shapes are units × size."""
        return tuple(each.row() for each in self.groups)

    def targets(self) -> list[Target]:
        """What is penalized now: frozen parameters are left out, and tied ones are named once.

        Raises:
            ConflictError: weights with different regularizers were tied after they were planned.
            ModelError: the model no longer has a weight as it was planned.
        """
        found = [target for target in self.all_targets if trainable(target.binding)]
        again = doubled(found)
        if torch.compiler.is_compiling():
            self.applied.compiled_for = len(self.applied.tied_since), again
        return [t for t in found if t.name not in again] if again else found

    def standing(self) -> list[Target]:
        """The targets, less those that the model no longer has."""
        held = ((target, parameters_behind(target.binding)) for target in self.all_targets)
        return [target for target, parameters in held if any(p.requires_grad for p in parameters)]

    def held(self) -> Iterable[nn.Parameter]:
        """Every parameter of its rows that the model still has, penalized or not."""
        return (p for each in self.weights for p in parameters_behind(each.binding))

    def scaled(self, factor: float) -> Self:
        """A plan of the same model with every strength multiplied by a number.

        It is to be applied in place of this one, which no longer warns that it is not.

        Raises:
            StrengthError: the factor, or a strength times it, is not a finite number ≥ 0.
        """
        weights, groups = ([e.scaled(factor) for e in of] for of in (self.weights, self.groups))
        self.applied.detached = True
        return type(self)(weights, self.model, self._activities.scaled(factor), groups)

    @contextmanager
    def resting(self) -> Iterator[None]:
        """A block in which it penalizes no outputs, and warns of nothing."""
        warned, self.applied.warned = self.applied.warned, True
        try:
            with self._activities.resting():
                yield
        finally:
            self.applied.warned = warned

    def never_applied(self) -> list[tuple[str, Regularizer]]:
        """What no loss and no attachment has ever had of it: names, and their regularizers."""
        applied, outputs = self.applied, self._activities
        if applied.attached or applied.by_loss:
            found = []
        else:
            found = [(target.name, target.regularizer) for target in self.targets()]
        if not outputs.entered_loss:
            found += [(f"output of {row.name}", row.regularizer) for row in outputs.rows]
        return found

    # --- over time --------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """How many steps an optimizer has taken with its parameters: what schedules follow.

        Of several optimizers, it is the number of the one with the most.
        """
        return self.applied.steps

    def settle(self, optimizer: Optimizer) -> None:
        """An optimizer has stepped; the terms of outputs are of one step only."""
        applied = self.applied
        problems = [self._activities.settle()]
        if not applied.warned:
            problems.append(self._activities.look())
        for problem in filter(None, problems):
            if not applied.warned:
                warnings.warn(
                    f"{type(optimizer).__name__} has stepped the plan's parameters, but {problem}",
                    NeverAppliedWarning,
                    stacklevel=6,
                )
        applied.warned = applied.warned or any(problems)

    @abstractmethod
    def check_loss(self) -> None:
        """Raise :class:`AppliedTwiceError` if a compiled loss applies what is attached."""

    def trains(self, groups: Mapping[int, Group]) -> bool:
        """Whether a step with these groups moves a model whose outputs are penalized."""
        return bool(self.activities) and any(
            id(p) in groups and p.grad is not None for p in self.held()
        )

    @property
    def activities(self) -> tuple[Activity, ...]:
        """The modules whose outputs are penalized, each with name, regularizer, declared_at."""
        return self._activities.rows

    def _now(self) -> list[Target]:
        """The targets, their strengths as they are in this step."""
        step: Any = self.applied.tensor if torch.compiler.is_compiling() else self.steps
        return [target.at(step) for target in self.targets()]

    def penalized_now(self, params: Any = None, *, at: Any = None) -> list[PenalizedNow]:
        """What is penalized, with the values that it has now; meta and lazy ones have none."""
        targets = self._now() if at is None else [t.at(at) for t in self.targets()]
        found = []
        with torch.no_grad():
            for target in (t for t in targets if _has_values(t.binding)):
                w, regularizer = target.binding.read().detach(), target.regularizer
                found.append(PenalizedNow(target.name, w, regularizer, float(regularizer(w))))
        return found

    def state_dict(self) -> dict[str, Any]:
        """What is penalized, how many steps there were, and the values at the start: plain data.

        For a plan whose ``penalty()`` stands in the loss; the state of an attachment has it all.
        """
        return state_of(self.all_targets, steps=self.steps, **self.activity_state())

    def activity_state(self) -> dict[str, Any]:
        """The penalties on outputs as plain data, for a state; nothing where there are none."""
        found = {row.name: described(row.regularizer) for row in self.activities}
        return {"activities": found} if found else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Check that what was saved is what is planned here, and go on from there.

        Taken from it are the number of steps and the values at the start, that parameters are drawn
        toward. Nothing is, if it raises.

        Raises:
            StateError: it was not saved by a plan, or by one with other parameters or regularizers;
                the message names every difference.
        """
        found = check_same(state, self.state_dict())
        self.restore(found, state["steps"])

    def restore(self, regularizers: Mapping[str, Regularizer], steps: int) -> None:
        """Take what was saved; attachments follow."""
        self.applied.steps = steps
        if not regularizers:
            return
        self.weights, self.groups = (
            tuple(
                each._replace(regularizer=regularizers.get(each.parameter.name, each.regularizer))
                for each in of
            )
            for of in (self.weights, self.groups)
        )
        self.all_targets = tuple(
            replace(t, regularizer=regularizers.get(t.name, t.regularizer))
            for t in self.all_targets
        )

    def check_newcomers(self, stepped: Collection[int]) -> None:
        """Warn of parameters, by id, that came to the model after it was planned."""
        others = set(stepped).difference(map(id, self.held()))
        if others.isdisjoint(map(id, self.model.parameters())):
            return
        bindings = {each.binding for each in self.weights}
        new = [
            parameter.name
            for parameter, binding in read(self.model)
            if binding not in bindings and any(id(p) in stepped for p in binding.parameters())
        ]
        if self._newcomers.issuperset(new):
            return
        self._newcomers.update(new)
        warnings.warn(
            f"{some(new)} came to the {type(self.model).__name__} after it was planned, so no "
            "rule reaches what the optimizer steps there. Regularize the model as it is now; "
            "detach() first what is attached.",
            NeverAppliedWarning,
            stacklevel=4,
        )


def _has_values(binding: Binding) -> bool:
    return binding.shape() is not None and not any(p.is_meta for p in binding.parameters())
