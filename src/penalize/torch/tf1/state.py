"""Where one stands: the scope that is open, with its defaults, in each store and thread."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch

from penalize.torch.tf1.keys import GraphKeys, Reuse
from penalize.torch.tf1.store import VariableStore, get_collection, get_default_store

Getter = Callable[..., Any]


@dataclass(eq=False)
class VariableScope:
    """A scope that ``variable_scope`` has opened, with the defaults for what is made in it.

    It can be kept and entered again. Each default is inherited from the scope around it, unless
    that was given another.
    """

    name: str = ""
    reuse: bool | Reuse | None = False
    initializer: Any = None
    regularizer: Any = None
    partitioner: Any = None
    custom_getter: Getter | None = None
    dtype: Any = torch.float32
    caching_device: Any = None
    """About graphs, as the two that follow: kept, and without effect."""
    use_resource: bool | None = None
    constraint: None = None

    @property
    def original_name_scope(self) -> str:
        """The name with a slash behind it. No operation is named here."""
        return f"{self.name}/" if self.name else ""

    def reuse_variables(self) -> None:
        """From here on, share variables that exist; making one in this scope is an error."""
        self.reuse = True

    def set_initializer(self, initializer: Any) -> None:
        """Set the default initializer."""
        self.initializer = initializer

    def set_regularizer(self, regularizer: Any) -> None:
        """Set the default regularizer."""
        self.regularizer = regularizer

    def set_partitioner(self, partitioner: Any) -> None:
        """Set the default partitioner."""
        self.partitioner = partitioner

    def set_custom_getter(self, custom_getter: Getter | None) -> None:
        """Set the custom getter."""
        self.custom_getter = custom_getter

    def set_dtype(self, dtype: Any) -> None:
        """Set the default dtype."""
        self.dtype = dtype

    def set_caching_device(self, caching_device: Any) -> None:
        """Without effect here."""
        self.caching_device = caching_device

    def set_use_resource(self, use_resource: bool | None) -> None:
        """Without effect here."""
        self.use_resource = use_resource

    def get_collection(self, name: str) -> list[Any]:
        """The items of a collection that lie in this scope."""
        return get_collection(name, self.name)

    def trainable_variables(self) -> list[Any]:
        """The trainable variables of this scope."""
        return self.get_collection(GraphKeys.TRAINABLE_VARIABLES)

    def global_variables(self) -> list[Any]:
        """The variables of this scope."""
        return self.get_collection(GraphKeys.GLOBAL_VARIABLES)

    def local_variables(self) -> list[Any]:
        """The variables of this scope that were entered among the local ones."""
        return self.get_collection(GraphKeys.LOCAL_VARIABLES)


@dataclass
class State:
    """Where one thread stands in one store."""

    current: VariableScope = field(default_factory=VariableScope)
    opened: Counter[str] = field(default_factory=Counter)
    """How often each scope was opened: what makes ``default_name`` unique."""


class _Local(threading.local):
    def __init__(self) -> None:
        self.states: WeakKeyDictionary[VariableStore, State] = WeakKeyDictionary()


_local = _Local()


def state_now() -> State:
    """Where this thread stands in the current store."""
    return _local.states.setdefault(get_default_store(), State())


def get_variable_scope() -> VariableScope:
    """The innermost scope that is open in the current store; the root scope outside of any."""
    return state_now().current


def joined(scope: str, name: str) -> str:
    """The name of what stands in a scope."""
    return f"{scope}/{name}" if scope else name


def unique(prefix: str, state: State) -> str:
    """The name, with a number if a scope of that name was opened here before."""
    name = joined(state.current.name, prefix)
    if not state.opened[name]:
        return prefix
    number = 1
    while state.opened[f"{name}_{number}"]:
        number += 1
    return f"{prefix}_{number}"
