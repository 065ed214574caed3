"""``mode="halfspace"`` on a Keras model: the half-space step around its optimizer's ``apply``.

The rule is in :mod:`penalize.halfspace`. What it remembers of a variable stands in variables of the
optimizer, which every backend carries through a step; ``plan.detach()`` takes them away again.
:mod:`penalize.keras.averages` has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from keras import ops

from penalize.backends import Backend, open_array
from penalize.errors import ModeError, ModelError
from penalize.halfspace import SCALARS, HalfSpace, Memory, begun, check_some_kinks
from penalize.keras.acting import InForce, at_step_of, zeros
from penalize.keras.averages import (
    ATTRIBUTE,
    AverageVariables,
    SavedAverages,
    Unaware,
    remembered,
)
from penalize.keras.conversion import name_of
from penalize.keras.modes import Change, Look, Mode, PenalizedVariable, changed
from penalize.keras.steppers import stepper_of
from penalize.keras_values import values_kept


class Halfspace(Mode):
    """What is 0 stays until the averaged gradient of the data overcomes the penalty."""

    name = "halfspace"

    def __init__(self, average: float) -> None:
        self._average = average

    def check(self, model: Any, targets: Sequence[PenalizedVariable]) -> None:
        check_some_kinks({target.name: target.regularizer for target in targets})
        for target in targets:
            constraint = target.weight.variable.constraint
            if constraint is not None:
                raise ModeError(
                    f"{target.name!r} has the constraint {name_of(constraint)}, and what it makes "
                    "of a weight may be on another side of 0",
                    'take the constraint off, or use mode="loss"',
                )
            _optimizer_of(model, target)

    def look(self, model: Any, target: PenalizedVariable, trainer: Any) -> None:
        variable = target.weight.variable
        apply = getattr(stepper_of(getattr(trainer, "optimizer", None), variable), "apply", None)
        acting = apply.acting if isinstance(apply, AroundApply) else ()
        if not any(each.target.weight.variable is variable for each in acting):
            raise ModeError(
                f"{target.name!r} is stepped by another optimizer than the one that its model had "
                'when the plan was made, and mode="halfspace" stands around that one',
                "detach() the plan, and regularize the model as it is compiled now",
            )

    def changes(self, model: Any, target: PenalizedVariable, look: Look) -> Iterator[Change]:
        yield changed(target.weight.variable, "regularizer", InForce(zeros, look))
        optimizer = _optimizer_of(model, target)
        around = optimizer.apply
        if not isinstance(around, AroundApply):
            around = AroundApply(around)
            yield changed(optimizer, "apply", around)
            # One that wraps it has its variables among its own.
            for holder in {id(o): o for o in (optimizer, model.optimizer)}.values():
                for name in ("save_own_variables", "load_own_variables"):
                    unaware = Unaware(optimizer, getattr(holder, name), around.averages)
                    yield changed(holder, name, unaware)
            yield Given(optimizer, ATTRIBUTE, None, SavedAverages(around.averages))
        variable = target.weight.variable
        held = remembered(optimizer, model, target.name, variable, self._average)
        yield Added(optimizer, "_variables", None, held)
        acting = HalfspaceStep(model, target, held)
        yield changed(around, "acting", (*around.acting, acting))

    def carry(
        self, model: Any, target: PenalizedVariable, copy: Any, copied: PenalizedVariable
    ) -> None:
        _averages_of(copy, copied).take(_averages_of(model, target))


class Added(Change):
    """Variables that an optimizer was given, and is rid of afterwards."""

    def make(self) -> None:
        """Nothing: they were made with the optimizer."""

    def undo(self) -> None:
        """Take them out of the optimizer."""
        ours = {id(variable) for variable in self.now.variables.values()}
        tracked = self.holder._variables
        for number in reversed(range(len(tracked))):
            if id(tracked[number]) in ours:
                del tracked[number]


class Given(Change):
    """An attribute that there was not before."""

    def undo(self) -> None:
        """Take it away."""
        delattr(self.holder, self.attribute)


class HalfspaceStep(NamedTuple):
    """One penalized variable, and what acts on it."""

    model: Any
    target: PenalizedVariable
    held: AverageVariables

    def before(self, gradient: Any) -> tuple[Any, HalfSpace, Memory]:
        """What the optimizer is to be given in place of a gradient."""
        w, xp = self._opened()
        penalty = at_step_of(self.model, self.target.regularizer)
        space = HalfSpace(penalty, w + 0.0 * w, self.held.average, xp)  # no view of what is stepped
        if gradient is None:
            gradient = ops.zeros_like(w)
        given, memory = space.before(xp.wide(ops.convert_to_tensor(gradient)), self._memory(w, xp))
        return xp.like(given, gradient), space, memory

    def after(self, space: HalfSpace, memory: Memory) -> None:
        """Set what is to be 0, and remember."""
        new, _ = self._opened()
        found, memory = space.after(new, memory)
        variable = self.target.weight.variable
        variable.assign(ops.cast(found, variable.dtype))
        self.held.mean.assign(memory.mean)
        self.held.numbers.assign(ops.stack(list(memory[1:])))

    def _opened(self) -> tuple[Any, Backend]:
        array, xp = open_array(self.target.weight.variable)
        return xp.wide(ops.stop_gradient(ops.convert_to_tensor(array))), xp

    def _memory(self, w: Any, xp: Backend) -> Memory:
        """As the last step left it; at the first step, as it begins with this weight."""
        numbers = [self.held.numbers.value[i] for i in range(len(SCALARS))]
        memory = Memory(ops.convert_to_tensor(self.held.mean.value), *numbers)
        return memory._replace(held=xp.where(memory.mass > 0, memory.held, begun(w, xp).held))


class AroundApply:
    """What stands in the place of an optimizer's ``apply``: that, with half-space steps around."""

    def __init__(self, apply: Callable[..., Any]) -> None:
        self._apply = apply
        self.acting: tuple[HalfspaceStep, ...] = ()

    def averages(self) -> list[AverageVariables]:
        """What is remembered now."""
        return [each.held for each in self.acting]

    def __call__(self, grads: Any, trainable_variables: Any = None) -> Any:
        with values_kept():
            gradients = list(grads)
            given = trainable_variables
            if given is None:
                given = self._apply.__self__._trainable_variables  # type: ignore[attr-defined]
            number = {id(variable): i for i, variable in enumerate(given)}
            steps = []
            for each in self.acting:
                place = number.get(id(each.target.weight.variable))
                if place is not None:
                    gradients[place], space, memory = each.before(gradients[place])
                    steps.append((each, space, memory))
            done = self._apply(gradients, trainable_variables)
            for each, space, memory in steps:
                each.after(space, memory)
            return done


def _averages_of(model: Any, target: PenalizedVariable) -> AverageVariables:
    acting: tuple[HalfspaceStep, ...] = _optimizer_of(model, target).apply.acting
    return next(e.held for e in acting if e.target.weight.variable is target.weight.variable)


def _optimizer_of(model: Any, target: PenalizedVariable) -> Any:
    """The optimizer that steps a target. Raises where what is set beside it does not stay."""
    optimizer = stepper_of(getattr(model, "optimizer", None), target.weight.variable)
    if optimizer is None:
        raise ModelError(
            f'mode="halfspace" stands around the optimizer, and this {type(model).__name__} has '
            "none",
            "compile it first",
        )
    kind = type(optimizer).__name__
    if "Ftrl" in kind:
        raise ModeError(
            'mode="halfspace" sets weights to 0 after each step, and Ftrl computes them anew from '
            "sums that it keeps",
            'use its own l1_regularization_strength, or mode="loss"',
        )
    for argument, reason in _REFUSED.items():
        value = getattr(optimizer, argument, None)
        if value:
            raise ModeError(
                f'mode="halfspace" is not right under {argument}={value!r} of {kind}: {reason}',
                f'leave {argument} out, or use mode="loss"',
            )
    return optimizer


_CLIPPED = "what is clipped would have the penalty in it, and what is averaged would not"
_REFUSED = {
    "clipnorm": _CLIPPED,
    "global_clipnorm": _CLIPPED,
    "clipvalue": _CLIPPED,
    "use_ema": "Keras sets the weights to averages, which have no zeros",
    "gradient_accumulation_steps": "the optimizer only accumulates in most steps",
    "loss_scale_factor": "gradients are scaled by it",
}
"""Arguments of optimizers that change gradients or weights behind a half-space step."""
