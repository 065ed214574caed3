"""``VariableStore``: the variables and collections that a TensorFlow 1 graph would hold."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from penalize.errors import VariableError
from penalize.torch.tf1.entries import Entry, Penalty, Value, Variable, penalty_behind
from penalize.torch.tf1.filters import scope_filter
from penalize.torch.tf1.keys import GraphKeys
from penalize.torch.tf1.sameness import described


class Made(NamedTuple):
    """How a variable was made."""

    regularizer: Any
    dtype: torch.dtype


class VariableStore(nn.Module):
    """The variables of a model that is written in TensorFlow 1's vocabulary, and its collections.

    It takes the place of ``tf.Graph``: inside ``with store:``, ``get_variable`` and the collections
    are its own; outside of any, they are those of a default store. Leaving the block keeps them,
    and a later ``with store:`` goes on.

    It is a module whose parameters have the variables' names, such as ``net/dense/kernel``. So
    ``store.parameters()`` goes to an optimizer, and ``state_dict()``, ``to()``, ``copy.deepcopy``
    and ``penalize.torch.regularize(store, rules)`` work. Variables exist once the model's code has
    run for the first time: make the optimizer, or load a state, after that. A variable that is not
    trainable is a parameter that requires no gradient.

    A tensor of PyTorch cannot be told its name: where TensorFlow code reads ``v.name``, write
    ``for name, v in store.named_parameters()``.

    ``regularizer=`` and rules are two doors. A penalty that was declared in the vocabulary acts
    through ``losses.get_regularization_loss()``, one that was declared by rules through its plan.
    Rules that penalize a variable which has a regularizer are refused.
    """

    # Kernels of TensorFlow have the outputs on the last axis; model/roles.py reads it.
    _penalize_output_last: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self._entries: dict[Hashable, list[Entry]] = {}
        # By name: how each variable was made, and the partitions of some.
        self._made: dict[str, Made] = {}
        self._partitions: dict[str, list[int]] = {}

    def __enter__(self) -> Self:
        _local.stack.append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _local.stack.pop()

    def _penalize_door(self, name: str) -> str:
        """What penalizes a variable already: read by penalize.torch.regularize."""
        for entry in self._entries.get(GraphKeys.REGULARIZATION_LOSSES, ()):
            if isinstance(entry, Penalty) and Variable(name) in entry.weights:
                return f"{described(entry.regularizer)} in the collection ({entry.name})"
        return ""

    def extra_repr(self) -> str:
        return "\n".join(f"{name}: {tuple(p.shape)}" for name, p in self.named_parameters())

    # --- collections ------------------------------------------------------------------------

    def add_to_collection(self, name: Hashable, value: Any) -> None:
        """Add any value to a collection, as :func:`add_to_collection` does to the current one."""
        self._enter_in(name, self._entry_of(value))

    def get_collection(self, name: Hashable, scope: str | None = None) -> list[Any]:
        """The items of a collection as they are now, as :func:`get_collection` gives them.

        Raises:
            ScopeError: ``scope`` is no string.
            VariableError: ``scope`` is a regular expression.
        """
        holds = scope_filter(scope)
        return [entry.read(self) for entry in self._entries.get(name, ()) if holds(entry.name)]

    def clear_collection(self, name: Hashable) -> None:
        """Forget the items of a collection, as ``tf.Graph.clear_collection`` does."""
        self._entries.pop(name, None)

    def _enter_in(self, key: Hashable, entry: Entry) -> None:
        entries = self._entries.setdefault(key, [])
        if not any(entry.repeats(known) for known in entries):
            entries.append(entry)

    def _entry_of(self, value: Any) -> Entry:
        """A variable by its name, a penalty by what it is computed from, others by themselves."""
        penalty = penalty_behind(value)
        if penalty is not None:
            return penalty
        if isinstance(value, Tensor):
            for name in self._made:
                if getattr(self, name) is value:
                    return Variable(name)
        return Value(value)

    # --- variables --------------------------------------------------------------------------

    def _keep(self, name: str, value: Tensor, regularizer: Any, trainable: bool) -> Tensor:
        """Make a variable of a value."""
        if "." in name or hasattr(self, name):
            raise VariableError(
                f"the name {name!r} cannot be given to a parameter of a PyTorch module",
                "a name without dots that is no attribute of torch.nn.Module; a variable_scope "
                "around it helps",
            )
        # Integers have no gradient here: a trainable one is only in the collection.
        needs_grad = trainable and (value.is_floating_point() or value.is_complex())
        variable = nn.Parameter(value, requires_grad=needs_grad)
        self.register_parameter(name, variable)
        self._made[name] = Made(regularizer, value.dtype)
        return variable


class _EnteredStores(threading.local):
    """The stores that this thread has entered, the innermost last."""

    def __init__(self) -> None:
        self.stack: list[VariableStore] = []


_local = _EnteredStores()
_default: list[VariableStore] = []


def get_default_store() -> VariableStore:
    """The store that ``get_variable`` writes to, as ``tf.get_default_graph()`` gives the graph.

    That is the one of the innermost ``with store:`` of this thread, or else the default store of
    the process.
    """
    if _local.stack:
        return _local.stack[-1]
    if not _default:
        _default.append(VariableStore())
    return _default[0]


def reset_default_store() -> None:
    """Begin a new default store, as ``tf.reset_default_graph()`` begins a graph.

    Raises:
        VariableError: inside ``with store:``, where it would have no effect.
    """
    if _local.stack:
        raise VariableError(
            "reset_default_store() was called inside a `with store:` block, whose store it would "
            "not touch",
            "a call outside of it; a fresh VariableStore() is another way to begin anew",
        )
    _default.clear()


def add_to_collection(name: Hashable, value: Any) -> None:
    """Add any value to a collection of the current store.

    Unlike in TensorFlow, a variable of the store that is in the collection is not added again: the
    model's code runs in every step here. A tensor that was computed in this step is not known again
    in the next one. It is kept as it is, with its autograd graph, beside those of earlier steps:
    for such a collection call ``store.clear_collection(name)`` in each step, or let a regularizer
    compute the penalty.

    Args:
        name: the collection's key, of :class:`GraphKeys` or any other.
        value: what to add.
    """
    get_default_store().add_to_collection(name, value)


def get_collection(key: Hashable, scope: str | None = None) -> list[Any]:
    """The items of a collection of the current store, in the order in which they were added.

    There is no graph: an item of ``GraphKeys.REGULARIZATION_LOSSES`` that ``get_variable`` or
    ``apply_regularization`` declared is computed now, from the weights as they are now, and is
    differentiable. Ask anew in each step. What you added yourself is returned as it is.

    Args:
        key: of :class:`GraphKeys` or any other; the list of an unknown key is empty.
        scope: only what is named so, or lies below it: ``"s"`` and ``"s/"`` give ``s/w``, never
            ``s2/w``. TensorFlow takes this for a regular expression that the name begins with, and
            gives both. Items without a name are in no scope.

    Raises:
        ScopeError: ``scope`` is no string.
        VariableError: ``scope`` is a regular expression.
    """
    return get_default_store().get_collection(key, scope)
