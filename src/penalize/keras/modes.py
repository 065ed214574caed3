"""How a plan acts on a Keras model: by what it sets on variables and layers.

Keras asks a variable for its regularizer in each step, and its layer's attribute when it saves or
clones the layer. After each update it asks a variable for its constraint.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import keras

from penalize.errors import ModeError, ModelError
from penalize.keras.acting import InForce, at_step_of, zeros
from penalize.keras.conversion import name_of
from penalize.keras.parameters import HeldVariable, HoldingLayer
from penalize.keras.steppers import stepper_of
from penalize.keras.steps import KNOWN, is_per_element, step_size_of, step_taken
from penalize.keras.trainers import steps_by_itself
from penalize.keras_values import values_kept
from penalize.regularizers.base import Regularizer


class PenalizedVariable(NamedTuple):
    """One variable that is penalized."""

    name: str
    weight: HeldVariable
    regularizer: Regularizer


class Change(NamedTuple):
    """One attribute that a plan sets, and what was there before."""

    holder: Any
    attribute: str
    before: Any
    now: Any

    def make(self) -> None:
        setattr(self.holder, self.attribute, self.now)

    def undo(self) -> None:
        """Restore what was there, unless somebody has set something else since."""
        if getattr(self.holder, self.attribute) is self.now:
            setattr(self.holder, self.attribute, self.before)


def changed(holder: Any, attribute: str, now: Any) -> Change:
    """The change of one attribute."""
    return Change(holder, attribute, getattr(holder, attribute), now)


Look = Callable[[], None]


class Mode(ABC):
    """One way to act."""

    name: ClassVar[str]

    @abstractmethod
    def check(self, model: Any, targets: Sequence[PenalizedVariable]) -> None:
        """Raise a sentence if the mode cannot act on these targets."""

    @abstractmethod
    def look(self, model: Any, target: PenalizedVariable, trainer: Any) -> None:
        """Raise a sentence if the mode cannot act on this target as it is trained now.

        Args:
            model: that of the plan.
            target: what is penalized.
            trainer: the model that is being trained.
        """

    def carry(  # noqa: B027  # most remember nothing
        self, model: Any, target: PenalizedVariable, copy: Any, copied: PenalizedVariable
    ) -> None:
        """Take what is remembered of a target to the target of a copy of the model."""

    @abstractmethod
    def changes(self, model: Any, target: PenalizedVariable, look: Look) -> Iterator[Change]:
        """What is to be set for a target; ``look`` is called in each (traced) step."""


class Loss(Mode):
    """The penalty is one of ``model.losses``."""

    name = "loss"

    def check(self, model: Any, targets: Sequence[PenalizedVariable]) -> None:
        for target in targets:
            regularizer = target.regularizer
            regularizer.check_gradient(repr(target.name))
            if regularizer.scheduled and keras.backend.backend() == "jax":
                raise ModeError(
                    f"{target.name!r} has {regularizer!r}, and on JAX Keras computes the loss "
                    "without the step of training, so that the strength would stand still",
                    'use mode="proximal", or another backend',
                )

    def look(self, model: Any, target: PenalizedVariable, trainer: Any) -> None:
        """A loss term acts under every optimizer."""

    def changes(self, model: Any, target: PenalizedVariable, look: Look) -> Iterator[Change]:
        variable, regularizer = target.weight.variable, target.regularizer
        there = variable.regularizer
        if there is not None and not (isinstance(there, Regularizer) and there != regularizer):
            # Declared on the variable, and in force as it is.
            yield changed(variable, "regularizer", InForce(there, look, model))
            return
        yield changed(variable, "regularizer", InForce(regularizer, look, model))
        for owner in target.weight.owners:
            attribute = attribute_of(owner)
            if attribute is not None:
                yield changed(owner.layer, attribute, regularizer)


def attribute_of(owner: HoldingLayer) -> str | None:
    """The layer's attribute for the regularizer of a variable; None where it has none.

    ``kernel_regularizer`` for ``kernel``, ``recurrent_regularizer`` for ``recurrent_kernel``, and
    for the kernel of a depthwise convolution ``depthwise_regularizer``.
    """
    stems = [owner.name, owner.name.removesuffix("_kernel")]
    stems += ["depthwise"] if owner.name == "kernel" else []
    names = (f"{stem}_regularizer" for stem in stems)
    return next((name for name in names if name in vars(owner.layer)), None)


class Proximal(Mode):
    """The variable's constraint is the proximal operator, with the step really taken."""

    name = "proximal"

    def check(self, model: Any, targets: Sequence[PenalizedVariable]) -> None:
        for target in targets:
            constraint = target.weight.variable.constraint
            if constraint is not None:
                raise ModeError(
                    f"{target.name!r} has the constraint {name_of(constraint)}, and a proximal "
                    "step beside it is not the proximal operator of both",
                    'take the constraint off, or use mode="loss"',
                )
            optimizer_of(model, target)

    def look(self, model: Any, target: PenalizedVariable, trainer: Any) -> None:
        optimizer, variable = optimizer_of(model, target), target.weight.variable
        if not steps_by_itself(trainer):
            return
        stepping = stepper_of(trainer.optimizer, variable)
        if stepping is not optimizer and any(v is variable for v in trainer.trainable_variables):
            raise _stepped_by(stepping, target.name)

    def changes(self, model: Any, target: PenalizedVariable, look: Look) -> Iterator[Change]:
        variable = target.weight.variable
        # What was declared on the variable acts here, and must not act in the loss too.
        yield changed(variable, "regularizer", InForce(zeros, look))
        yield changed(variable, "constraint", ProximalStep(model, target))


@dataclass(frozen=True, eq=False)
class ProximalStep:
    """w ← prox of step·Ω at w: a constraint, which Keras applies right after the update."""

    model: Any
    target: PenalizedVariable

    def __call__(self, variable: Any) -> Any:
        with values_kept():
            # Looked up in each (traced) step: the model may have been compiled anew.
            optimizer = optimizer_of(self.model, self.target)
            # The caller, where it can be seen.
            stepping = sys._getframe(1).f_locals.get("self")
            if isinstance(stepping, keras.optimizers.Optimizer) and stepping is not optimizer:
                raise _stepped_by(stepping, self.target.name)
            acting = at_step_of(self.model, self.target.regularizer)
            return acting.prox_taken(variable, step_taken(optimizer, variable))


def _stepped_by(optimizer: Any, name: str) -> ModeError:
    return ModeError(
        f"{name!r} is stepped by an optimizer ({type(optimizer).__name__}) that is not the one its "
        "model was compiled with",
        "make the plan with the model that is trained",
    )


def optimizer_of(model: Any, target: PenalizedVariable) -> Any:
    """The optimizer that steps a target, if the proximal step beside it is exact.

    Raises:
        ModelError: the model is not compiled.
        ModeError: the step that it takes is not known, or not the one of the data alone.
        NoProximalOperatorError: the regularizer has no exact prox with such a step.
    """
    optimizer = stepper_of(getattr(model, "optimizer", None), target.weight.variable)
    if optimizer is None:
        raise ModelError(
            f'mode="proximal" needs the optimizer, and this {type(model).__name__} has none',
            "compile it first",
        )
    what = type(optimizer).__name__
    if step_size_of(optimizer) is None:
        raise ModeError(
            f'mode="proximal" needs the step that the optimizer really takes, and that of {what} '
            "is not known",
            f'use one of {KNOWN}, or mode="halfspace", which needs no step, or mode="loss"',
        )
    for argument, reason in _INEXACT.items():
        value = getattr(optimizer, argument, None)
        if value:
            raise ModeError(
                f'mode="proximal" is not exact under {argument}={value!r} of {what}: {reason}',
                f'leave {argument} out, or use mode="loss"',
            )
    where = f"{target.name!r} under {what}"
    target.regularizer.check_step(per_element=is_per_element(optimizer), where=where)
    return optimizer


_CLIPPED = "clipping shortens the step of the data, not that of the penalty"
_INEXACT = {
    "clipnorm": _CLIPPED,
    "global_clipnorm": _CLIPPED,
    "clipvalue": _CLIPPED,
    "use_ema": "Keras averages the weights before their constraints, and sets them to the average",
    "gradient_accumulation_steps": "Keras applies constraints also where the optimizer only "
    "accumulates",
}
"""Arguments of optimizers under which a constraint is not the proximal step."""
