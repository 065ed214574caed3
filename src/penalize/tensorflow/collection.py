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
from penalize.tensorflow.graphs import ancestors, encloses, origins, results_of

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

    def concerns(self, updated: set[Any], graph: Any) -> bool:
        """Whether it is computed from one of these variables of a graph, given by their origins."""
        return hasattr(self.item, "op") and not updated.isdisjoint(self._origins)

    @cached_property
    def _origins(self) -> set[Any]:
        return origins([self.item])

    def is_within(self, graph: Any) -> bool:
        """Whether it stays in a function of this graph; a promise is kept in any graph."""
        return self.variable is None and self.is_penalty and not encloses(self.item.graph, graph)

    def takes_in(self, other: Declared) -> bool:
        """Whether it is computed from another entry."""
        if self.prefix or not self.is_penalty:
            return False
        return bool(other.uses(self.item, ancestors([self.item])))

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
    items = [item for holder in _holders(graph) for item in holder.get_collection(_KEY)]
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


def _holders(graph: Any) -> list[Any]:
    """The graph, and its functions: ``wrap_function`` keeps collections of its own."""
    functions = [getattr(f, "_cached_graph", None) for f in graph._functions.values()]
    return [graph, *(function for function in functions if function is not None)]


_KEY = v1.GraphKeys.REGULARIZATION_LOSSES


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
