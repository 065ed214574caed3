"""What reached each parameter → the rows of a report. Numbers and names in, sentences out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from penalize.parameters import Role
from penalize.report import Found, Level


class Decay(NamedTuple):
    """The weight decay of an optimizer on one parameter."""

    optimizer: str
    """What to call it; two optimizers of one class have two names."""

    amount: float
    kind: str = ""
    """``"decoupled"``, ``"in the gradient"``, or another of ``decay_kinds``; empty where it is not
    known."""

    is_default: bool = False
    """Whether the amount is what the optimizer takes if nobody says anything."""

    factor: float = math.nan
    """How often it entered, where that was measured: lr·weight_decay·w, where it is decoupled."""

    note: str = ""

    def __str__(self) -> str:
        kind = f", {self.kind}" if self.kind else ""
        return f"weight_decay={self.amount:.4g} of {self.optimizer}{kind}"


class Entered(NamedTuple):
    """A penalty that is written into the loss by hand."""

    kind: str
    """``"L2"``, ``"L1"`` or ``"norm"``."""

    strength: float
    """λ of λΣw² or λΣ|w|, over all backward passes of a step; of a norm, its gradient over w."""

    times: int = 1
    """How many backward passes of one step it was in."""

    repeated: Level = Level.FACT
    """Whether each of them has all of it, while the data's part is averaged over them."""

    def __str__(self) -> str:
        if self.kind == "norm":
            return f"a norm in the loss, with gradient {self.strength:.3g}·w"
        return f"{self.kind}({self.strength:.3g}) in the loss"


@dataclass(frozen=True)
class AuditedWeight:
    """One parameter, and all that a training step does to it beside the data."""

    name: str
    role: Role
    aliases: tuple[str, ...] = ()
    held_by: tuple[str, ...] = ()
    """The optimizers that hold it, also those that have not stepped it."""

    is_trainable: bool = True
    got_gradient: bool = True
    was_stepped: bool = True
    """Whether it had a gradient at a step. Without, optimizers leave it alone."""

    decays: tuple[Decay, ...] = ()
    """One of each optimizer that stepped it, also where it is 0."""

    entered: tuple[Entered, ...] = ()
    declared: str = ""
    """A declared penalty that has an L2 and is applied, in words."""


def findings(weights: Sequence[AuditedWeight]) -> list[Found]:
    """A row for each regularization of each parameter, and for what is wrong with it otherwise."""
    habits = _habits(weights)
    return [found for weight in weights for found in _rows(weight, habits)]


def _rows(weight: AuditedWeight, habits: dict[str, _Habit]) -> Iterator[Found]:
    for decay in weight.decays:
        if decay.amount:
            yield _of_decay(weight, decay, habits.get(decay.optimizer, _Habit()))
    for entered in weight.entered:
        yield _of_term(weight, entered)
    problem = _out_of_step(weight)
    if problem is not None:
        yield Found(weight.name, *problem)


# --- weight decay -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Habit:
    """What an optimizer decays, and what it leaves alone."""

    decayed: frozenset[Role] = frozenset()
    exempt: frozenset[Role] = frozenset()

    @property
    def spares_small_ones(self) -> bool:
        """Whether its groups are made by role: of what is exempt nothing is a kernel."""
        return bool(self.exempt & _SMALL) and Role.KERNEL not in self.exempt

    @property
    def is_reversed(self) -> bool:
        """Whether kernels are exempt, and biases or norms in their place are decayed."""
        return Role.KERNEL in self.exempt and Role.KERNEL not in self.decayed


_SMALL = frozenset({Role.BIAS, Role.NORM})


def _habits(weights: Iterable[AuditedWeight]) -> dict[str, _Habit]:
    habits: dict[str, _Habit] = {}
    for weight in weights:
        for decay in weight.decays if weight.was_stepped else ():
            habit = habits.get(decay.optimizer, _Habit())
            if decay.amount:
                habit = replace(habit, decayed=habit.decayed | {weight.role})
            else:
                habit = replace(habit, exempt=habit.exempt | {weight.role})
            habits[decay.optimizer] = habit
    return habits


def _of_decay(weight: AuditedWeight, decay: Decay, habit: _Habit) -> Found:
    level, says = _verdict_on_decay(weight, decay, habit)
    words = [says, decay.note]
    if weight.aliases and level is not Level.WRONG:
        words.append(f"tied with {', '.join(weight.aliases)}")
    if level is not Level.WRONG and decay.is_default:
        words.append("the optimizer's default")
    return Found(weight.name, level, "; ".join(filter(None, words)), str(decay), decay.factor)


def _verdict_on_decay(weight: AuditedWeight, decay: Decay, habit: _Habit) -> tuple[Level, str]:
    if not weight.was_stepped:
        return Level.FACT, str(weight.role)
    beside = [str(e) for e in weight.entered if e.kind == "L2"]
    beside += [weight.declared] if weight.declared else []
    if beside:
        return Level.WRONG, f"penalized twice: also by {' and '.join(beside)}"
    # A table of biases, such as of relative positions, is as large as a kernel.
    is_small = weight.role in _SMALL and "table" not in weight.name
    if is_small and habit.spares_small_ones:
        return Level.WRONG, f"{weight.role}: others that {decay.optimizer} holds are exempt"
    if is_small and habit.is_reversed:
        return Level.WRONG, f"{weight.role}: decayed, while the kernels are exempt"
    if is_small:
        return Level.LOOK, f"{weight.role}: usually exempt"
    # In the units of AdamW it is another number than the one that was set.
    is_other = math.isfinite(decay.factor) and decay.factor not in (0.0, 1.0)
    return Level.LOOK if is_other else Level.FACT, str(weight.role)


# --- terms of the loss ------------------------------------------------------------------------


def _of_term(weight: AuditedWeight, entered: Entered) -> Found:
    decays = [str(d) for d in weight.decays if d.amount]
    beside = [weight.declared] if weight.declared else []
    beside += decays
    words = []
    if beside and entered.kind == "L2":
        words.append(f"penalized twice: also by {' and '.join(beside)}")
    level = Level.WRONG if words else entered.repeated
    if entered.repeated:
        words.append(
            f"{entered.times} times too large, unless its strength was divided by hand: added in "
            f"each of {entered.times} backward passes, over which the data loss is averaged"
        )
    if words:
        is_certain = entered.repeated is not Level.LOOK
        factor = (entered.times if entered.repeated else 1) if is_certain else math.nan
        return Found(weight.name, level, "; ".join(words), str(entered), factor)
    many = f"summed over {entered.times} backward passes" if entered.times > 1 else ""
    return Found(weight.name, Level.FACT, many, str(entered), 1.0)


# --- parameters and optimizers ----------------------------------------------------------------


def _out_of_step(weight: AuditedWeight) -> tuple[Level, str] | None:
    if len(weight.decays) > 1:
        several = " and ".join(decay.optimizer for decay in weight.decays)
        decaying = sum(decay.amount > 0 for decay in weight.decays) * weight.was_stepped
        level = Level.WRONG if decaying > 1 else Level.LOOK
        twice = ", which decay it again" if decaying > 1 else ""
        return level, f"stepped by several optimizers, {several}{twice}"
    if not weight.held_by and weight.is_trainable and weight.got_gradient:
        return (
            Level.WRONG,
            "no optimizer holds it, though it gets a gradient: give it to one, or freeze it",
        )
    if weight.held_by and not weight.is_trainable and weight.got_gradient:
        return Level.LOOK, f"frozen, but {weight.held_by[0]} steps it by a gradient that is left"
    return None
