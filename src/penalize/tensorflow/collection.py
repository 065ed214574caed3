"""The collection ``REGULARIZATION_LOSSES`` of a TensorFlow 1 graph, entry by entry.

What ``get_variable(regularizer=...)`` enters is not a tensor but a promise of one: each use calls
the regularizer again and makes new operations, below the variable's own name scope. So an entry
finds its uses in a loss by that scope, and knows its variable and regularizer by the promise.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import tensorflow as tf

from penalize.contrib import regularizer_of
from penalize.errors import NoMatchError
from penalize.parameters import Parameter, Role, Site
from penalize.regularizers.base import Regularizer
from penalize.selectors import named
from penalize.tensorflow.declared import Declared
from penalize.tensorflow.graphs import ancestors, results_of

v1 = tf.compat.v1


@dataclass(frozen=True, eq=False)
class Collected:
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
        return (
            not isinstance(self.item, tf.Variable)
            and hasattr(self.item, "op")
            and self.item.shape.rank in (0, None)
        )

    def uses(self, loss: Any, ops: set[Any]) -> list[Any]:
        """The tensors that bring this penalty into the loss, whose ancestors are ops."""
        found = results_of(self.prefix, ops, loss) if self.prefix else []
        if self.is_penalty and self.item.op in ops and not self._is_below_prefix:
            found.append(self._tensor)  # as a regularizer gives that keeps the tensor it made
        return found

    @property
    def _is_below_prefix(self) -> bool:
        return bool(self.prefix) and str(self.item.op.name).startswith(self.prefix)

    @property
    def _tensor(self) -> Any:
        """The tensor itself, also of a promise."""
        return self.item.graph.get_tensor_by_name(self.item.name)

    @cached_property
    def sources(self) -> set[Any]:
        """The operations that it is computed from, those of its variables among them."""
        return ancestors([self.item]) if hasattr(self.item, "op") else set()

    def takes_in(self, other: Declared) -> bool:
        """Whether it is computed from another entry."""
        if self.prefix or not self.is_penalty:
            return False
        return bool(other.uses(self.item, self.sources))

    def penalty(self) -> Any:
        """The penalty as a tensor of the current graph."""
        return tf.convert_to_tensor(self.item)


def collected(graph: Any, scope: Any = None) -> list[Collected]:
    """The entries of a graph's collection; the same thing entered twice is one.

    Args:
        graph: a TensorFlow 1 graph.
        scope: a name or variable scope: only what is declared in it or below; ``"s"`` does not mean
            ``"s2"``. Everything if None or empty.

    Raises:
        NoMatchError: nothing is declared in the scope.
    """
    items = graph.get_collection(v1.GraphKeys.REGULARIZATION_LOSSES)
    entries = [_entry(item) for item in {id(item): item for item in items}.values()]
    name = str(getattr(scope, "name", scope) or "").rstrip("/")
    if not name:
        return entries
    selector = named(name)
    sites = [Site(entry.name) for entry in entries]
    records = [Parameter((site,), Role.OTHER, None) for site in sites]
    inside = [selector.matches(r, s) for r, s in zip(records, sites, strict=True)]
    if not any(inside):
        raise NoMatchError(selector, f"scope={name!r}", selector.hint(records))
    return list(itertools.compress(entries, inside))


def _entry(item: Any) -> Collected:
    if not hasattr(item, "op"):
        return Collected(item, repr(item))
    promised = _promise(item)
    if not promised:
        # A graph that was imported has the tensors, and their scopes, in place of the promises.
        variable, below, _ = item.op.name.rpartition(_SCOPE)
        return Collected(item, variable or item.op.name, f"{variable}{_SCOPE}" if below else "")
    return Collected(
        item,
        promised["name"],
        f"{promised['name']}{_SCOPE}",
        promised["v"],
        regularizer_of(promised["regularizer"]),
    )


_SCOPE = "/Regularizer/"
"""What ``get_variable`` calls the name scope of a penalty, below the variable's."""


def _promise(item: Any) -> Mapping[str, Any]:
    """What a promise will be computed from: the variable, its name, the regularizer."""
    thunk = getattr(item, "_thunk", None)
    if thunk is None:
        return {}
    return inspect.getclosurevars(thunk).nonlocals
