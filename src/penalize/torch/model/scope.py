"""Declarations at the place where a model is built: ``scope`` and ``declare``.

A declaration is kept as plain data in the ``__dict__`` of the module that holds the parameter, by
the parameter's own name. There it survives deepcopy, pickle, ``to_empty``, parametrizations and
sharding, which all replace the parameter, and it stays out of ``state_dict``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.utils.parametrize import ParametrizationList

from penalize.alive import alive
from penalize.callsite import callsite
from penalize.errors import ModelError, RulesError
from penalize.regularizers.base import Regularizer
from penalize.rules import Rule, Rules, Table, parse
from penalize.selectors import everything
from penalize.torch.model.bindings import bindings_of

_SCOPES = "_penalize_scopes"
_DECLARED = "_penalize_declared"

_active: ContextVar[tuple[Table, ...]] = ContextVar("penalize_scopes", default=())


def scope(rules: Rules | None) -> AbstractContextManager[None]:
    """Declare rules for every parameter that is registered inside the ``with`` block.

    An inner scope overrides an outer one, ``scope(None)`` exempts everything built inside, and any
    scope overrides the rules that are later passed to ``regularize``. Names are those of the model
    that is passed to ``regularize``; a module that does not know where it will stand starts its
    patterns with ``**``. Scopes of other threads are not heard. What is built keeps the rules: a
    ``where(lambda …)`` in them makes the model as hard to pickle as any lambda.

    Raises:
        RulesError, SelectorError: as for ``regularize``.
    """
    place = callsite()
    if rules is None:
        table = Table((Rule(everything, None),), "scope", place)
    else:
        table = parse(rules, "scope", place)
    return _entered(table)


@contextmanager
def _entered(table: Table) -> Iterator[None]:
    _listen()
    token = _active.set((*_active.get(), table))
    try:
        yield
    finally:
        _active.reset(token)


@functools.cache
def _listen() -> None:
    register_module_parameter_registration_hook(_registered)


def _registered(module: nn.Module, name: str, parameter: Any) -> None:
    scopes = _active.get()
    # A parameter that is assigned anew (load_state_dict(assign=True)) while an outer scope is still
    # open was built where it was first registered.
    if scopes and scopes_of(module, name)[: len(scopes)] != scopes:
        _keep(module, _SCOPES, name, scopes)


def _keep(module: nn.Module, kind: str, name: str, value: Any) -> None:
    # A new dictionary each time: copy.copy of a module shares the old one.
    module.__dict__[kind] = {**module.__dict__.get(kind, {}), name: value}


def declare(parameter: nn.Parameter, regularizer: Regularizer | None) -> None:
    """Declare the penalty of one parameter; None exempts it. Stronger than scopes and rules.

    The parameter must already be registered in a module: the declaration is kept there, and found
    by looking through all live modules, which takes a tenth of a second in a large process. A
    later declaration on the same parameter replaces an earlier one.

    Raises:
        ModelError: no module holds the parameter.
        RulesError: the second argument is no regularizer.
    """
    if regularizer is not None and not isinstance(regularizer, Regularizer):
        raise RulesError(
            f"declare got {regularizer!r}, a {type(regularizer).__name__}",
            "Write declare(model.head.weight, L1(1e-3)).",
        )
    sites = list(_holders(parameter)) if isinstance(parameter, Tensor) else []
    if not sites:
        raise ModelError(
            f"declare got a {type(parameter).__name__} that no module holds as a parameter",
            "pass a registered one, such as declare(model.head.weight, L1(1e-3))",
        )
    for module, name in sites:
        if isinstance(module, ParametrizationList) or name not in [
            weight for weight, _, _ in bindings_of(module)
        ]:
            raise ModelError(
                f"declare got {name!r}, from which an effective weight is computed",
                "declare the weight before it is reparametrized, or name it in the rules",
            )
    table = Table((Rule(everything, regularizer),), "declare", callsite())
    for module, name in sites:
        _keep(module, _DECLARED, name, table)


def _holders(parameter: Tensor) -> Iterator[tuple[nn.Module, str]]:
    for candidate in alive(nn.Module):
        for name, held in candidate.__dict__.get("_parameters", {}).items():
            if held is parameter:
                yield candidate, name


def scopes_of(module: nn.Module, name: str) -> tuple[Table, ...]:
    """The scopes in which a module registered that parameter, outermost first."""
    found: tuple[Table, ...] = module.__dict__.get(_SCOPES, {}).get(name, ())
    return found


def declared_on(module: nn.Module, name: str) -> Table | None:
    """What was declared on that parameter itself."""
    found: Table | None = module.__dict__.get(_DECLARED, {}).get(name)
    return found
