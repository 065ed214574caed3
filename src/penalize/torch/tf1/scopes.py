"""``variable_scope``: a prefix of names, and defaults for the variables made below it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any

from penalize.errors import ScopeError, VariableError
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
        VariableError: a ValueError, where TensorFlow raises one: ``reuse`` is something else, or
            was given without a name.
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
        self._left: list[tuple[State, VariableScope, str, Counter[str] | None]] = []

    def __enter__(self) -> VariableScope:
        state = state_now()
        before = state.current
        if isinstance(self._name_or_scope, VariableScope):
            scope = self._below(self._name_or_scope, self._name_or_scope.name)
            state.opened[scope.name] += 1
            self._left.append((state, before, scope.name, Counter(state.opened)))
        else:
            scope = self._below(before, joined(before.name, self._named(state)))
            state.opened[scope.name] += 1
            self._left.append((state, before, scope.name, None))
        state.current = scope
        return scope

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        state, before, left, opened = self._left.pop()
        if opened is None:
            for name in state.opened:
                if name.startswith(f"{left}/"):
                    state.opened[name] = 0
        else:
            state.opened = opened
        state.current = before

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
