"""How a plan reaches variables: a weight is one of them, or all shards of a partitioned one."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from penalize.backends.tensorflow import place_of
from penalize.errors import ModelError


@dataclass(frozen=True, eq=False)
class Weight:
    """One array of a model."""

    name: str
    variables: tuple[Any, ...]
    """The variable, or the shards in their order. A Keras variable is kept as it is: it knows
    whether it is frozen, and the variable within does not.
    """

    shape: tuple[int, ...]
    axis: int = 0
    """The axis along which the shards follow each other."""

    @property
    def first(self) -> Any:
        """TensorFlow's variable, or the first shard."""
        return opened(self.variables[0])

    @property
    def trainable(self) -> bool:
        """Whether it is trained now."""
        return all(variable.trainable for variable in self.variables)

    def read(self) -> Any:
        """The value of the weight: differentiable, and read anew each time."""
        return self.joined(lambda variable: variable)

    def joined(self, read: Callable[[Any], Any]) -> Any:
        """An array per variable, put together as the variables are."""
        arrays = [read(opened(variable)) for variable in self.variables]
        return arrays[0] if len(arrays) == 1 else tf.concat(arrays, self.axis)

    def assign(self, value: Any) -> list[Any]:
        """The operations that set it, one per variable."""
        sizes = [variable.shape[self.axis] for variable in self.variables]
        parts = [value] if len(sizes) == 1 else tf.split(value, sizes, self.axis)
        pairs = zip(self.variables, parts, strict=True)
        return [opened(variable).assign(part) for variable, part in pairs]


def opened(variable: Any) -> Any:
    """TensorFlow's variable within a Keras variable; others as they are.

    Not as a layer sees it under a policy of mixed precision, in its narrower type.
    """
    if not type(variable).__module__.startswith("keras."):
        return variable
    from keras.src.backend.common.variables import AutocastScope  # Keras exports none

    with AutocastScope(None):
        return variable.value


def is_partitioned(value: Any) -> bool:
    """Whether it is what ``get_variable`` returns under a partitioner, a class without a public
    name.
    """
    return type(value).__name__ == "PartitionedVariable"


def weights_of(variables: Iterable[Any]) -> list[Weight]:
    """The weights that variables are, or are shards of; each once, where it first appears.

    Raises:
        ModelError: of a partitioned variable only some shards are there.
    """
    shards: dict[Hashable, list[Any]] = {}
    for variable in _flat(variables):
        placed = place_of(variable)
        key = id(opened(variable)) if placed is None else (placed.full_name, id(variable.graph))
        known = shards.setdefault(key, [])
        if not any(variable is other for other in known):
            known.append(variable)
    return [_weight(group) for group in shards.values()]


def _flat(variables: Iterable[Any]) -> Iterable[Any]:
    for variable in variables:
        if is_partitioned(variable):
            yield from variable
        else:
            yield variable


def _weight(shards: list[Any]) -> Weight:
    first = shards[0]
    placed = place_of(first)
    if placed is None:
        name = getattr(first, "path", None) or first.name.partition(":")[0]
        return Weight(name, (first,), tuple(first.shape))
    full, part = tuple(placed.full_shape), tuple(placed.var_shape)
    axis = next((i for i, size in enumerate(full) if size != part[i]), 0)
    shards = sorted(shards, key=lambda v: place_of(v).var_offset[axis])
    if sum(shard.shape[axis] for shard in shards) != full[axis]:
        raise ModelError(
            f"{placed.full_name!r} is partitioned, and only some of its shards were given",
            "pass all of them, or the partitioned variable itself",
        )
    return Weight(placed.full_name, tuple(shards), full, axis)
