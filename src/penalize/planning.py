"""Records and rules → what holds for each parameter. The step that every wing shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from penalize.backends import Array
from penalize.callsite import callsite
from penalize.errors import NoMatchError, RoleError, RulesError
from penalize.parameters import Parameter, Role
from penalize.ranges import ranges_in
from penalize.regularizers.base import Regularizer
from penalize.regularizers.place import Place
from penalize.rules import Decision, Rules, parse, resolve
from penalize.selectors import Selector, as_selector

Roles = Mapping[Selector | str, Role | str]
"""Corrections of roles: selector → role."""


class Planned(NamedTuple):
    """One parameter, and what was decided for it."""

    parameter: Parameter
    decision: Decision
    regularizer: Regularizer | None
    """The decided one, with the words of its groups resolved to axes."""

    def scaled(self, factor: float) -> Planned:
        """The same with its strength multiplied by a number."""
        decided, regularizer = self.decision.regularizer, self.regularizer
        if decided is None or regularizer is None:
            return self
        decision = replace(self.decision, regularizer=factor * decided)
        return self._replace(decision=decision, regularizer=factor * regularizer)


def planned(
    parameters: Sequence[Parameter],
    rules: Rules | None,
    roles: Roles | None,
    start: Callable[[int], Array],
) -> list[Planned]:
    """Resolve rules against the records of a model, after correcting their roles.

    Args:
        parameters: the records, in the model's order.
        rules: what was passed to ``regularize``; None where declarations say it all.
        roles: what was passed as ``roles=``.
        start: reads the value that the parameter with this number has now.

    Raises:
        RulesError, SelectorError, RoleError: the rules or roles are malformed.
        NoMatchError: a selector matches nothing.
        ConflictError: two declarations of the same rank disagree on a tied parameter.
        GroupsError, ShapeError, AnchorError: a regularizer does not fit a parameter.
    """
    table = parse({} if rules is None else rules, "rule", callsite())
    records = _with_roles(list(parameters), {} if roles is None else roles)
    decisions = resolve(records, table)
    for decision in {id(each.regularizer): each for each in decisions}.values():
        check_chosen(decision)
    return [
        Planned(record, decision, _resolved(decision.regularizer, record, start, number))
        for number, (record, decision) in enumerate(zip(records, decisions, strict=True))
    ]


def _resolved(
    regularizer: Regularizer | None, record: Parameter, start: Callable[[int], Array], number: int
) -> Regularizer | None:
    if regularizer is None or type(regularizer).resolve is Regularizer.resolve:
        return regularizer  # it is the same everywhere
    names = (record.name, *record.aliases)
    return regularizer.resolve(Place(names, record.shape, record.layout, partial(start, number)))


def check_chosen(decision: Decision) -> None:
    """Raise :class:`RulesError` where a strength is a range to choose from."""
    if decision.regularizer is not None and any(ranges_in(decision.regularizer)):
        raise RulesError(
            f"{decision.regularizer!r} ({decision.declared_at}) has a strength that is not chosen "
            "yet",
            "Pass the rules to penalize.torch.tune, which chooses it, or write a number.",
        )


def _with_roles(parameters: list[Parameter], roles: Roles) -> list[Parameter]:
    if not isinstance(roles, Mapping):
        raise RoleError(f"is {roles!r}, a {type(roles).__name__}", list(Role))
    for key, value in roles.items():
        selector = as_selector(key)
        if value not in list(Role):
            raise RoleError(f"gives {selector!r} the role {value!r}", list(Role))
        hits = [any(selector.matches(p, site) for site in p.sites) for p in parameters]
        if not any(hits):
            raise NoMatchError(selector, f"roles ({callsite()})", selector.hint(parameters))
        parameters = [
            replace(p, role=Role(value)) if hit else p
            for p, hit in zip(parameters, hits, strict=True)
        ]
    return parameters
