"""``variable_scope``: a prefix of names, and defaults for the variables made below it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple

from penalize.errors import ScopeError, VariableError
from penalize.torch.tf1.arguments import check_name
from penalize.torch.tf1.keys import AUTO_REUSE, Reuse
from penalize.torch.tf1.state import Getter, State, VariableScope, joined, state_now, unique


class variable_scope:  # noqa: N801 - TensorFlow's name
    """A block that prefixes the names of variables and gives them defaults.

    Where nothing else is said, a default is inherited from the scope around it; a regularizer of
    None inherits too, :func:`no_regularizer` disables.

    On PyTorch the model's code runs in every step: put ``reuse=AUTO_REUSE`` on the scope around it.
    A unique ``default_name`` starts anew each time that such a scope is entered; on its own, at the
    root, it would make new variables in every step, as a second call makes them in a TensorFlow
    graph.

    Args:
        name_or_scope: a name, or a scope that was opened before.
        default_name: used if that is None, made unique by a number at the end.
        initializer: default of ``get_variable``.
        regularizer: default of ``get_variable``.
        partitioner: default of ``get_variable``.
        custom_getter: called in place of making a variable; it wraps that of the scope around.
        reuse: True to share variables only, ``AUTO_REUSE`` to make those that do not exist, None or
            False to inherit.
        dtype: default of ``get_variable``.
        constraint: refused: no optimizer of PyTorch would apply it.
        values, caching_device, use_resource, auxiliary_name_scope: about graphs; no effect here.

    Raises:
        ScopeError: a TypeError, where TensorFlow raises one: there is no name, or it is no string.
            Also a RuntimeError: the block is left before one that was opened in it, or is entered
            again inside of itself.
        VariableError: a ValueError, where TensorFlow raises one: ``reuse`` is something else, or
            was given without a name; or the name has other characters than TensorFlow allows.
    """

    def __init__(  # noqa: PLR0917 - TensorFlow's order
        self,
        name_or_scope: str | VariableScope | None,
        default_name: str | None = None,
        values: Any = None,
        initializer: Any = None,
        regularizer: Any = None,
        caching_device: Any = None,
        partitioner: Any = None,
        custom_getter: Getter | None = None,
        reuse: bool | Reuse | None = None,
        dtype: Any = None,
        use_resource: bool | None = None,
        constraint: Any = None,
        auxiliary_name_scope: bool = True,
    ) -> None:
        _check_arguments(name_or_scope, default_name, reuse, auxiliary_name_scope)
        refuse_constraint(constraint)
        self._name_or_scope = name_or_scope
        self._default_name = default_name
        self._reuse = reuse or None
        self._custom_getter = custom_getter
        self._defaults = {
            "initializer": initializer,
            "regularizer": regularizer,
            "partitioner": partitioner,
            "dtype": dtype,
        }
        self._open: _Open | None = None

    def __enter__(self) -> VariableScope:
        if self._open is not None:
            raise ScopeError(
                f"the variable_scope {self._open.scope.name!r} was entered again inside of itself",
                "a block of its own for each, as of variable_scope(scope), where scope is what "
                "this one gave",
            )
        state = state_now()
        before = state.current
        counted = None
        if isinstance(self._name_or_scope, VariableScope):
            scope = self._below(self._name_or_scope, self._name_or_scope.name)
            state.opened[scope.name] += 1
            counted = Counter(state.opened)
        else:
            scope = self._below(before, joined(before.name, self._named(state)))
            check_name("a variable_scope", scope.name)
            state.opened[scope.name] += 1
        self._open = _Open(state, before, scope, counted)
        state.current = scope
        return scope

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._open is None:
            raise ScopeError("a variable_scope was left that is not open", "it to be entered first")
        state, before, scope, counted = self._open
        if state.current is not scope and error is None:
            raise ScopeError(
                f"the variable_scope {scope.name!r} was left before {state.current.name!r}, which "
                "was opened after it",
                "scopes to be left in the order in which a with statement leaves them",
            )
        if counted is None:
            for name in state.opened:
                if name.startswith(f"{scope.name}/"):
                    state.opened[name] = 0
        else:
            state.opened = counted
        state.current = before
        self._open = None

    def _named(self, state: State) -> str:
        if self._name_or_scope is None:
            # The name that was found is kept: the same object entered again is the same scope.
            self._name_or_scope = unique(str(self._default_name), state)
        return str(self._name_or_scope)

    def _below(self, parent: VariableScope, name: str) -> VariableScope:
        given = {key: value for key, value in self._defaults.items() if value is not None}
        getter = parent.custom_getter
        if self._custom_getter is not None:
            getter = _wrapped(self._custom_getter, getter)
        reuse = self._reuse or parent.reuse
        return replace(parent, name=name, reuse=reuse, custom_getter=getter, **given)


class _Open(NamedTuple):
    """A block between its two ends."""

    state: State
    before: VariableScope
    scope: VariableScope
    counted: Counter[str] | None
    """How often each scope was opened, where a scope that was kept is entered again."""


def _wrapped(outer: Getter, inner: Getter | None) -> Getter:
    """The getter of a scope around the getter of the scope that holds it."""
    if inner is None:
        return outer

    def wrapped(getter: Getter, *args: Any, **kwargs: Any) -> Any:
        return outer(partial(inner, getter), *args, **kwargs)

    return wrapped


def _check_arguments(name_or_scope: Any, default_name: Any, reuse: Any, auxiliary: Any) -> None:
    if name_or_scope is None and default_name is None:
        raise ScopeError(
            "a variable_scope got neither name_or_scope nor default_name", "one of them"
        )
    if not isinstance(default_name, str | None):
        raise ScopeError(
            f"a variable_scope got default_name={default_name!r}, a {type(default_name).__name__}",
            "a name",
        )
    if not isinstance(name_or_scope, VariableScope | str | None):
        raise ScopeError(
            f"a variable_scope got name_or_scope={name_or_scope!r}, "
            f"a {type(name_or_scope).__name__}",
            "a name, or a scope that variable_scope has opened",
        )
    if not (reuse is None or isinstance(reuse, bool) or reuse is AUTO_REUSE):
        raise VariableError(
            f"a variable_scope got reuse={reuse!r}", "True, False, None or AUTO_REUSE"
        )
    if reuse and name_or_scope is None:
        raise VariableError(
            f"a variable_scope got reuse={reuse!r} with a default_name, which is made unique and "
            "so names no scope that exists",
            "a name_or_scope",
        )
    if not isinstance(auxiliary, bool):
        raise ScopeError(
            f"a variable_scope got auxiliary_name_scope={auxiliary!r}", "True or False"
        )


def refuse_constraint(constraint: Any) -> None:
    """A constraint that nobody applies would be a wrong number without a word."""
    if constraint is not None:
        raise VariableError(
            f"the constraint {constraint!r} was given, and no optimizer of PyTorch applies it",
            "no constraint here; project the weight after optimizer.step()",
        )
