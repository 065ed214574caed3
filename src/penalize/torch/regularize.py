"""``regularize``: rules and a model → a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from penalize.backends import open_array
from penalize.callsite import callsite
from penalize.errors import ArrayError, NoMatchError, RoleError
from penalize.parameters import Parameter, Role
from penalize.regularizers.base import Regularizer
from penalize.rules import Decision, Rules, parse, resolve
from penalize.selectors import Selector, as_selector
from penalize.torch.bindings import Binding
from penalize.torch.parameters import read
from penalize.torch.plan import Entry, Plan
from penalize.torch.watch import watch


def regularize(
    model: nn.Module,
    rules: Rules | None = None,
    *,
    roles: Mapping[Selector | str, Role | str] | None = None,
) -> Plan:
    """Resolve rules, scopes and declarations against a model.

    Nothing acts yet: add ``plan.penalty()`` to the loss, or ``plan.attach(optimizer)``.

    Args:
        model: any module; wrappers (``torch.compile``, DDP, ``AveragedModel``, …) are looked
            through.
        rules: a regularizer, for the kernels; or a mapping (or list of pairs) selector →
            regularizer, or → None to exempt. Later rows win. A rule that mentions no role and
            names no parameter in full acts on kernels. None if scopes and declarations say it all.
        roles: corrects what a parameter is taken for, selector → role:
            ``roles={of_type(MyNorm): "norm"}``.

    Raises:
        RulesError, SelectorError, RoleError: the rules or roles are malformed.
        NoMatchError: a selector matches nothing.
        ConflictError: two declarations of the same rank disagree on a tied parameter.
        GroupsError: groups do not fit a parameter.
        ArrayError: a trainable parameter with a regularizer is not real floating-point.
        ModelError: there is no model, it has no parameters, or one that cannot be planned.
    """
    table = parse({} if rules is None else rules, "rule", callsite())
    found = read(model)
    parameters = _with_roles([parameter for parameter, _ in found], roles or {})
    decisions = resolve(parameters, table)
    bindings = [binding for _, binding in found]
    plan = Plan([_entry(*row) for row in zip(parameters, decisions, bindings, strict=True)])
    watch(plan)
    return plan


def _with_roles(
    parameters: list[Parameter], roles: Mapping[Selector | str, Role | str]
) -> list[Parameter]:
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


def _entry(parameter: Parameter, decision: Decision, binding: Binding) -> Entry:
    regularizer: Regularizer | None = None
    if decision.regularizer is not None:
        regularizer = decision.regularizer.resolve(
            parameter.layout, parameter.shape, repr(parameter.name)
        )
        for source in binding.parameters():
            open_array(source)  # looked up now: torch.compile cannot trace the search
            if parameter.trainable and not source.dtype.is_floating_point:
                raise ArrayError(
                    f"{parameter.name!r} of dtype {source.dtype}",
                    "a real floating-point parameter; exempt it with a rule that gives None",
                )
    return Entry(parameter, decision, binding, regularizer)
