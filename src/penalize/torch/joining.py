"""``together=``: groups that span parameters, from what users write to what is planned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from penalize.errors import ConflictError, GroupsError, NoMatchError, RulesError
from penalize.parameters import Parameter, Role, Site
from penalize.planning import check_chosen
from penalize.regularizers.base import Regularizer
from penalize.regularizers.place import Place
from penalize.rules import Decision
from penalize.selectors import Selector, as_selector
from penalize.torch.model.joined import Joined, check_joined
from penalize.torch.model.members import Axis, Member, listed, member_of
from penalize.torch.model.targets import Target
from penalize.torch.planned import PlannedWeight

Together = Mapping[str, tuple[Regularizer, Mapping[Any, Axis]]]
"""The name of a group → its regularizer, and members: selector → axis."""


def joined(
    weights: Sequence[PlannedWeight], together: Together | None, model: nn.Module, place: str
) -> tuple[list[PlannedWeight], list[PlannedWeight]]:
    """The rows of parameters, those of groups that span them, as they are planned.

    Args:
        weights: what rules, scopes and declarations say.
        together: what was passed to ``regularize``.
        model: the model.
        place: where it was passed.

    Raises:
        RulesError: it is no such mapping.
        NoMatchError: a member matches nothing.
        GroupsError: an axis does not fit a member, or members have other numbers of units, or have
            an element twice.
        ConflictError: a scope or a declaration on a parameter says something else of a member.
    """
    if together is None:
        return list(weights), []
    if not isinstance(together, Mapping):
        raise _no_entry(together, "together=")
    known = {site.name for each in weights for site in each.parameter.sites}
    groups: list[PlannedWeight] = []
    targets, taken = [], _Taken()
    for name, entry in together.items():
        regularizer, members = _entry(name, entry)
        if not isinstance(name, str) or not name or name in known:
            raise RulesError(
                f"together= has a group called {name!r}"
                + (", as a parameter is" if name in known else ""),
                'Give it a name of its own, such as "hidden".',
                _EXPECTED,
            )
        found = list(_members(name, members, weights, place))
        _check_one_number(name, found)
        for number, member in found:
            taken.take(name, number, member)
        binding = Joined(model, name, tuple(each for _, each in found))
        targets.append(Target(name, binding, regularizer))
        groups.append(_planned(targets[-1], binding, place))
    check_joined(targets)
    rows = [
        _row(each, taken.names.get(number, []), taken.is_all(number), place)
        for number, each in enumerate(weights)
    ]
    return rows, groups


_EXPECTED = (
    'a mapping from the name of a group to a regularizer and members, together={"hidden": '
    '(GroupLasso(1e-3), {"0": "outputs", "2.weight": "inputs"})}'
)


def _no_entry(found: Any, where: str) -> RulesError:
    return RulesError(
        f"{where} is {found!r}, a {type(found).__name__}",
        'A member is a selector, and says along which axis its units lie: "outputs", "inputs", an '
        "axis, blocks of one, or an axis and positions along it.",
        _EXPECTED,
    )


def _entry(name: Any, entry: Any) -> tuple[Regularizer, list[tuple[Any, Any]]]:
    where = f"together[{name!r}]"
    if not (isinstance(entry, tuple | list) and len(entry) == 2):
        raise _no_entry(entry, where)
    regularizer, members = entry
    if not isinstance(regularizer, Regularizer) or not isinstance(members, Mapping) or not members:
        raise _no_entry(entry, where)
    return regularizer, list(members.items())


# --- members ------------------------------------------------------------------------------------


def _members(
    group: str, members: Iterable[tuple[Any, Any]], weights: Sequence[PlannedWeight], place: str
) -> Iterator[tuple[int, Member]]:
    """Each member, with the number of its parameter."""
    seen: dict[int, Selector] = {}
    for key, axis in members:
        selector = as_selector(key)
        hits = [
            number
            for number, each in enumerate(weights)
            if any(selector.matches(each.parameter, site) for site in each.parameter.sites)
        ]
        if not hits:
            declared = f"together {group!r} ({place})"
            raise NoMatchError(selector, declared, selector.hint([w.parameter for w in weights]))
        for number in hits:
            name = weights[number].parameter.name
            if number in seen:
                raise GroupsError(
                    axis,
                    f"{seen[number]!r} has selected it already",
                    "name each parameter once",
                    f"{name!r} in the group {group!r}",
                )
            seen[number] = selector
            yield number, member_of(group, weights[number].parameter, weights[number].binding, axis)


def _check_one_number(group: str, members: Sequence[tuple[int, Member]]) -> None:
    (_, first), *others = members
    for _, other in others:
        if other.units != first.units:
            raise GroupsError(
                group,
                f"{first.name!r} has {first.units} units there, and {other.name!r} {other.units}",
                "name the axis along which the same units lie in each; blocks(axis, count) where "
                "each has several neighbours",
                f"the group {group!r}",
            )


class _Taken:
    """What groups have of each parameter, by its number."""

    def __init__(self) -> None:
        self.names: dict[int, list[str]] = {}
        self._parts: dict[int, list[tuple[str, Member, set[int]]]] = {}

    def take(self, group: str, number: int, member: Member) -> None:
        """Note that a group has a part. Raises :class:`GroupsError` if another one has of it."""
        positions = member.positions
        all_of_it = range(member.shape[member.axis])
        mine = {*(all_of_it if positions is None else positions.reshape(-1).tolist())}
        for other, its, theirs in self._parts.get(number, []):
            if its.axis != member.axis or mine & theirs:
                raise GroupsError(
                    group,
                    f"{member.name!r} has elements in it that are in the group {other!r} as well, "
                    "and of groups that overlap no exact proximal operator is known",
                    "let one of them have its rows or columns",
                    f"the group {group!r}",
                )
        self._parts.setdefault(number, []).append((group, member, mine))
        self.names.setdefault(number, []).append(group)

    def is_all(self, number: int) -> bool:
        """Whether groups have all of a parameter."""
        parts = self._parts.get(number)
        return (
            parts is None
            or sum(len(mine) for _, _, mine in parts) == parts[0][1].shape[parts[0][1].axis]
        )


# --- as they are planned ------------------------------------------------------------------------


def _planned(target: Target, binding: Joined, place: str) -> PlannedWeight:
    group, regularizer = target.name, target.regularizer
    members = listed(binding.members)
    record = Parameter(
        (Site(group),), Role.OTHER, binding.shape(), outputs_axis=0, note=f"of unit i: {members}"
    )
    decision = Decision(regularizer, f"together ({place})", rule=f"together {group!r}")
    check_chosen(decision)
    where = Place((group,), record.shape, record.layout, binding.read)
    return PlannedWeight(record, decision, binding, regularizer.resolve(where))


def _row(each: PlannedWeight, groups: list[str], is_all: bool, place: str) -> PlannedWeight:
    """What holds for a parameter beside the groups that it is in."""
    if not groups:
        return each
    before, said = each.decision, " and ".join(map(repr, groups))
    if before.declared_at and not before.rule.startswith("rule"):
        raise ConflictError(
            [each.parameter.name],
            f"{before.regularizer!r} by {before.declared_at}",
            f"together {said} ({place})",
            "parameter",
        )
    overrode = before.overrode
    if before.regularizer is not None:
        if not is_all:
            raise GroupsError(
                groups[0],
                f"a part of {each.parameter.name!r} is in it, and a rule says "
                f"{before.regularizer!r} of the whole",
                "exempt the parameter by a rule that gives None, or share all of it out",
                f"the group {groups[0]!r}",
            )
        overrode = (f"{before.regularizer!r} by {before.declared_at}", *overrode)
    decision = replace(
        before,
        regularizer=None,
        declared_at=f"together ({place})",
        overrode=overrode,
        rule=f"together {said}",
    )
    return PlannedWeight(each.parameter, decision, each.binding, None, tuple(groups))
