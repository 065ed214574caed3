"""``regularize``: rules and a model → a plan."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from penalize.backends import open_array
from penalize.callsite import callsite
from penalize.errors import AppliedTwiceError, ArrayError
from penalize.parameters import Parameter
from penalize.planning import Planned, Roles, planned
from penalize.rules import Decision, Rules
from penalize.torch.joining import Together, joined
from penalize.torch.model.bindings import Binding
from penalize.torch.model.parameters import read
from penalize.torch.outputs.activities import Activities
from penalize.torch.outputs.rules import ActivityRules, chosen
from penalize.torch.plan import Plan
from penalize.torch.planned import PlannedWeight


def regularize(
    model: nn.Module,
    rules: Rules | None = None,
    *,
    roles: Roles | None = None,
    activities: ActivityRules | None = None,
    activities_in_eval: bool = False,
    together: Together | None = None,
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
        activities: penalties on the outputs of modules: a mapping (or list of pairs) from
            ``of_type(nn.ReLU)``, the name of a module, or a combination of these, to regularizer
            or None. Later rows win. Ω(output)/batch of each forward, the batch being the first
            axis (of recurrent modules, attention and transformer layers: their batch, and their
            output without states and attention weights), waits in ``plan.penalty()`` and
            ``plan.activity_penalty()`` for the loss. An output must not be changed in place
            afterwards.
        activities_in_eval: whether modules in evaluation have their outputs penalized as well.
            Never where gradients are disabled.
        together: groups of units that span parameters: the name of a group → a regularizer and its
            members, ``{"hidden": (GroupLasso(1e-3), {"0": "outputs", "2.weight": "inputs"})}``.
            A member is a selector (of whatever role), and says along which axis its units lie:
            ``"outputs"``, ``"inputs"``, an axis, :func:`~penalize.blocks` of one where each unit
            has several neighbours, or an axis and positions along it, one or as many for each
            unit: ``("outputs", range(0, 64))``. The regularizer is that of one matrix with a row
            for each unit, its members side by side. Groups share no element, and override rules as
            a later row does.

    Raises:
        RulesError, SelectorError, RoleError: the rules or roles are malformed.
        NoMatchError: a selector matches nothing.
        ConflictError: two declarations of the same rank disagree on a tied parameter, or on a
            shared module.
        GroupsError, ShapeError: a regularizer does not fit a parameter, or an output; members of a
            group have other numbers of units, or share elements.
        NoGradientError: a regularizer of an output has no gradient.
        ArrayError: a trainable parameter with a regularizer is not real floating-point.
        ModelError: there is no model, it has no parameters, or one that cannot be planned.
        AppliedTwiceError: a parameter has a regularizer in TensorFlow 1's vocabulary already.
    """
    with _uncollected():
        found = read(model)
        bindings = [binding for _, binding in found]
        parameters = [parameter for parameter, _ in found]
        rows = planned(parameters, rules, roles, lambda number: bindings[number].read())
        weights = [_planned(row, binding) for row, binding in zip(rows, bindings, strict=True)]
        weights, groups = joined(weights, together, model, callsite())
        says = {group.parameter.name: group.decision for group in groups}
        for each in weights:
            for name in each.together[:1]:
                _check(each.parameter, says[name], each.binding)
    outputs = chosen(model, {} if activities is None else activities, callsite())
    return Plan(weights, model, Activities(outputs, in_eval=activities_in_eval), groups)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Within the block nothing is looked through for garbage.

    A plan is many small objects that stay. Making them would have the collector look several times
    through all that a process with a framework has, which takes longer than making them.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _planned(row: Planned, binding: Binding) -> PlannedWeight:
    if row.regularizer is not None:
        _check(row.parameter, row.decision, binding)
    return PlannedWeight(row.parameter, row.decision, binding, row.regularizer)


def _check(parameter: Parameter, decision: Decision, binding: Binding) -> None:
    """Raise a sentence where a weight is none of real numbers, or penalized by its module."""
    _check_door(parameter.name, binding, decision)
    for source in binding.parameters():
        open_array(source)  # looked up now: torch.compile cannot trace the search
        if parameter.trainable and not source.dtype.is_floating_point:
            raise ArrayError(
                f"{parameter.name!r} of dtype {source.dtype}",
                "a real floating-point parameter; exempt it with a rule that gives None",
            )


def _check_door(name: str, binding: Binding, decision: Decision) -> None:
    """A module may say that it penalizes a parameter itself, as a ``tf1.VariableStore`` does."""
    # Of the class: a module looks long for what it does not have.
    door = getattr(type(binding.module), "_penalize_door", None)
    first = "" if door is None else door(binding.module, binding.name)
    if first:
        raise AppliedTwiceError(
            [name],
            first,
            f"{decision.regularizer!r} by {decision.declared_at}",
            "Take regularizer= away, or exempt the variable with a rule that gives None",
        )
