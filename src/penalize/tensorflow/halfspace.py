"""The half-space step around an update of TensorFlow 1; see :mod:`penalize.halfspace`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from penalize.backends import tensorflow as xp
from penalize.errors import ModeError
from penalize.halfspace import SCALARS, HalfSpace, Memory, begun, check_some_kinks
from penalize.tensorflow.proximal import Acting
from penalize.tensorflow.weights import Weight, opened

v1 = tf.compat.v1

_OWN_WEIGHTS = {
    "FtrlOptimizer": "it computes the weights anew from sums that it keeps",
    "AdagradDAOptimizer": "it computes the weights anew from sums that it keeps",
    "SyncReplicasOptimizer": "it steps only when all replicas have given their gradients",
}
_SCALED = "it passes over steps whose gradients overflow"


def check_edits(optimizer: Any) -> None:
    """Raise :class:`ModeError` if weights that are set beside this optimizer do not stay so."""
    kind = type(optimizer).__name__
    reason = _SCALED if "LossScale" in kind else _OWN_WEIGHTS.get(kind)
    if reason:
        raise ModeError(
            f'mode="halfspace" sets weights to 0 after each step, and of {kind} this is not '
            f"known to be right: {reason}",
            'use mode="gradient"',
        )


def check_targets(targets: Sequence[Acting]) -> None:
    """Raise :class:`NoKinkError` unless penalties make zeros, and it is known where."""
    check_some_kinks({target.weight.name: target.regularizer for target in targets})


class Remembered(NamedTuple):
    """What is remembered of one weight, in variables of the graph, which a saver saves."""

    mean: Any
    numbers: Any
    """All of :class:`~penalize.halfspace.Memory` but the mean."""

    def read(self, w: Any) -> Memory:
        """As the last step left it; at the first step, as it begins with this weight."""
        numbers = tf.unstack(self.numbers.read_value(), num=len(SCALARS))
        memory = Memory(self.mean.read_value(), *numbers)
        return memory._replace(held=xp.where(memory.mass > 0, memory.held, begun(w, xp).held))

    def assign(self, memory: Memory) -> list[Any]:
        """The operations that set it."""
        return [self.mean.assign(memory.mean), self.numbers.assign(tf.stack(memory[1:]))]


def remembered(weight: Weight) -> Remembered:
    """New variables for a weight."""
    w = weight.first
    dtype = tf.float64 if w.dtype.base_dtype == tf.float64 else tf.float32
    with v1.name_scope("halfspace"):
        make = [
            v1.Variable(tf.zeros(shape, dtype), trainable=False, use_resource=True, name=name)
            for shape, name in ((weight.shape, "mean"), ((len(SCALARS),), "numbers"))
        ]
    return Remembered(*make)


class AroundUpdate(NamedTuple):
    """The step of one weight, from before the update."""

    weight: Weight
    space: HalfSpace
    remembered: Remembered
    memory: Memory

    def after(self) -> list[Any]:
        """The operations behind the update."""
        new = xp.wide(self.weight.joined(lambda variable: variable.read_value()))
        found, memory = self.space.after(new, self.memory)
        return [
            *self.weight.assign(xp.like(found, self.weight.first)),
            *self.remembered.assign(memory),
        ]


def begin(
    targets: Sequence[Acting],
    pairs: Sequence[tuple[Any, Any]],
    kept: Mapping[str, Remembered],
    average: float,
    counted: Any,
) -> tuple[list[tuple[Any, Any]], list[AroundUpdate]]:
    """The pairs that the optimizer is to be given, and what is to be done behind its update.

    Args:
        targets: the weights.
        pairs: the gradients of the data, with their variables.
        kept: by the name of the weight.
        average: how much of an average stays in a step.
        counted: how many steps there were; None if nobody asks.
    """
    gradients = {variable.ref(): gradient for gradient, variable in pairs}
    given, steps = dict(gradients), []
    for weight, regularizer in targets:
        penalty = regularizer if counted is None else regularizer.at(counted)
        # What reads a variable may be an alias of it, which the update would change.
        read = weight.joined(lambda variable: variable.read_value())
        space = HalfSpace(penalty, xp.wide(tf.raw_ops.DeepCopy(x=read)), average, xp)
        g = weight.joined(lambda variable: gradients[variable.ref()])
        memory = kept[weight.name].read(space.w)
        replaced, memory = space.before(xp.wide(g), memory)
        replaced = tf.cast(replaced, g.dtype)
        sizes = [variable.shape[weight.axis] for variable in weight.variables]
        parts = [replaced] if len(sizes) == 1 else tf.split(replaced, sizes, weight.axis)
        for variable, part in zip(weight.variables, parts, strict=True):
            given[opened(variable).ref()] = part
        steps.append(AroundUpdate(weight, space, kept[weight.name], memory))
    return [(given[variable.ref()], variable) for _, variable in pairs], steps


def finish(update: Any, steps: Sequence[AroundUpdate], name: str | None) -> Any:
    """The operation that runs the update and sets what is to be 0."""
    with tf.control_dependencies([update]), v1.name_scope("halfspace"):
        done = [operation for step in steps for operation in step.after()]
    return tf.group(update, *done, name=name)
