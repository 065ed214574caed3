"""The collection ``REGULARIZATION_LOSSES`` of a TensorFlow 1 graph, entry by entry.

What ``get_variable(regularizer=...)`` enters is not a tensor but a promise of one: each use calls
the regularizer again and makes new operations, below the variable's own name scope. So an entry
finds its uses in a loss by that scope, and knows its variable and regularizer by the promise.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import tensorflow as tf

from penalize import names
from penalize.contrib import regularizer_of
from penalize.regularizers.base import Regularizer
from penalize.tensorflow.declared import Declared
from penalize.tensorflow.graphs import ancestors, results_of

v1 = tf.compat.v1


@dataclass(frozen=True, eq=False)
class Entry:
    """One thing in the collection."""

    item: Any
    """What was entered: a tensor, a variable, or a promise of a tensor."""

    name: str
    """The variable's name, or else the tensor's."""

    prefix: str = ""
    """The name scope of a promise's operations, with its final slash."""

    variable: Any = None
    """The variable that a promise penalizes: a whole one, or a shard of one."""

    regularizer: Regularizer | None = None
    """The penalize regularizer that was declared; None where it is some other function."""

    @property
    def variables(self) -> tuple[Any, ...]:
        """The variable that is penalized, where it is known."""
        return () if self.variable is None else (self.variable,)

    @property
    def is_penalty(self) -> bool:
        """Whether it is a scalar, and not weights that somebody entered as they are."""
        return not isinstance(self.item, tf.Variable) and self.item.shape.rank == 0

    def uses(self, loss: Any, ops: set[Any]) -> list[Any]:
        """The tensors that bring this penalty into the loss, whose ancestors are ops."""
        if self.prefix:
            return results_of(self.prefix, ops, loss)
        return [self.item] if self.item.op in ops and self.is_penalty else []

    @cached_property
    def sources(self) -> set[Any]:
        """The operations that it is computed from, those of its variables among them."""
        return ancestors([self.item])

    def takes_in(self, other: Declared) -> bool:
        """Whether it is computed from another entry."""
        if self.prefix or not self.is_penalty:
            return False
        return bool(other.uses(self.item, self.sources))

    def penalty(self) -> Any:
        """The penalty as a tensor of the current graph."""
        return tf.convert_to_tensor(self.item)


def collected(graph: Any, scope: str | None = None) -> list[Entry]:
    """The entries of a graph's collection.

    Args:
        graph: a TensorFlow 1 graph.
        scope: only what is declared in this scope or below; ``"s"`` does not mean ``"s2"``.
    """
    entries = map(_entry, graph.get_collection(v1.GraphKeys.REGULARIZATION_LOSSES))
    if scope is None:
        return list(entries)
    inside = names.compile_pattern(scope.rstrip("/"))
    return [entry for entry in entries if inside.match(names.ended(entry.name))]


def _entry(item: Any) -> Entry:
    promised = _promise(item)
    if not promised:
        return Entry(item, item.op.name)
    return Entry(
        item,
        promised["name"],
        f"{promised['name']}/Regularizer/",
        promised["v"],
        regularizer_of(promised["regularizer"]),
    )


def _promise(item: Any) -> Mapping[str, Any]:
    """What a promise will be computed from: the variable, its name, the regularizer."""
    thunk = getattr(item, "_thunk", None)
    if thunk is None:
        return {}
    return inspect.getclosurevars(thunk).nonlocals
