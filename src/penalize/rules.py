"""Rules: selector → regularizer or None. Parsed once, then resolved against records.

The order of strength, weakest first: the rules passed to ``regularize`` (later rows win), outer
scopes, inner scopes, a declaration on the parameter itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from penalize.errors import ConflictError, NoMatchError, RulesError
from penalize.parameters import Parameter, Role, Site
from penalize.regularizers.base import Regularizer
from penalize.selectors import HasRole, Named, Selector, as_selector, everything, kernels

Rules = Regularizer | Mapping[Any, Regularizer | None] | Sequence[tuple[Any, Regularizer | None]]
"""What users write: a regularizer (for kernels), a mapping, or a list of pairs."""


@dataclass(frozen=True)
class Rule:
    """One row: these parameters get this regularizer, or None."""

    selector: Selector
    regularizer: Regularizer | None

    def matches(self, parameter: Parameter, site: Site) -> bool:
        return self.selector.matches(parameter, site) and self.acts_on_role(parameter, site)

    def acts_on_role(self, parameter: Parameter, site: Site) -> bool:
        """A rule that mentions no role and names no parameter in full penalizes kernels only."""
        return (
            self.regularizer is None
            or parameter.role is Role.KERNEL
            or self.selector.mentions_role
            or self.selector.names_in_full(site)
        )

    @property
    def key(self) -> str:
        """The selector as the user wrote it: a bare string for ``named``."""
        selector = self.selector
        return repr(selector.pattern if isinstance(selector, Named) else selector)


@dataclass(frozen=True)
class Table:
    """Ordered rules, and where they were declared."""

    rules: tuple[Rule, ...]
    kind: str
    """``"rule"``, ``"scope"`` or ``"declare"``."""

    place: str
    """File and line."""

    def says(self, rule: Rule) -> str:
        """A rule in words, without the place."""
        return self.kind if rule.selector == everything else f"{self.kind} {rule.key}"

    def describe(self, rule: Rule) -> str:
        return f"{self.says(rule)} ({self.place})"


@dataclass(frozen=True, slots=True)
class Decision:
    """What holds for one parameter, who said so, and whom that overrode."""

    regularizer: Regularizer | None = None
    declared_at: str = ""
    overrode: tuple[str, ...] = ()
    passed_over: str = ""
    """A rule that covers the parameter but acts on kernels only."""

    idle: tuple[str, ...] = ()
    """The rules by role that no parameter of the model is matched by."""

    rule: str = ""
    """What was declared, without the place: ``"rule kernels"``."""


def parse(rules: Any, kind: str, place: str) -> Table:
    """Any form of rules as a table.

    Raises:
        RulesError: the rules, or a row of them, are something else.
        SelectorError: a key selects no parameters.
    """
    if isinstance(rules, Regularizer):
        return Table((Rule(kernels, rules),), kind, place)
    if isinstance(rules, Mapping):
        rows = list(rules.items())
    elif isinstance(rules, Iterable) and not isinstance(rules, str):
        rows = list(rules)
    else:
        raise RulesError(_found(rules, "The rules are"), _instead(rules))
    return Table(tuple(_parse_row(row) for row in rows), kind, place)


def _parse_row(row: object) -> Rule:
    if not (isinstance(row, tuple | list) and len(row) == 2):
        raise RulesError(_found(row, "A row is"), 'Write ("encoder", L2(1e-4)).')
    key, value = row
    selector = as_selector(key)
    if value is not None and not isinstance(value, Regularizer):
        raise RulesError(_found(value, f"The rule for {key!r} is"), _instead(value))
    return Rule(selector, value)


def _found(value: object, start: str) -> str:
    return f"{start} {value!r}, a {type(value).__name__}"


def _instead(value: object) -> str:
    if isinstance(value, int | float):
        return f"Write L2({value!r})."
    if isinstance(value, type) and issubclass(value, Regularizer):
        return f"Write {value.__name__}(1e-4)."
    if callable(value):
        return f"Write Custom({getattr(value, '__name__', 'function')})."
    return "Write {kernels: L2(1e-4)}."


def resolve(parameters: Sequence[Parameter], table: Table) -> list[Decision]:
    """One decision per parameter.

    Raises:
        NoMatchError: a selector of the table that asks for more than roles, or a name in a scope,
            matches nothing.
        ConflictError: declarations of the same rank disagree on a tied parameter.
    """
    _check_matches(parameters, table)
    idle = tuple(
        rule.key
        for rule in table.rules
        if not any(rule.selector.matches(p, s) for p in parameters for s in p.sites)
    )
    known: dict[Any, Decision] = {}
    decisions = []
    for parameter in parameters:
        said = _said(parameter, table)
        decision = known.get(said)
        if decision is None:
            decision = replace(_decide(parameter, table), idle=idle)
            if said is not None:
                known[said] = decision
        decisions.append(decision)
    return decisions


def _said(parameter: Parameter, table: Table) -> tuple[bool | None, ...] | None:
    """For each rule whether it acts on a parameter; None where it does not cover it.

    A decision follows, unless scopes, declarations or ties have a say: None.
    """
    site = parameter.sites[0]
    if len(parameter.sites) > 1 or site.scopes or site.declared is not None:
        return None
    return tuple(
        [
            rule.acts_on_role(parameter, site) if rule.selector.matches(parameter, site) else None
            for rule in table.rules
        ]
    )


class _Word(NamedTuple):
    """What one rule says of a parameter, at the sites of these names."""

    rank: int
    names: set[str]
    regularizer: Regularizer | None
    declared_at: str
    rule: str

    def __str__(self) -> str:
        return f"{self.regularizer!r} by {self.declared_at}"


def _decide(parameter: Parameter, table: Table) -> Decision:
    """Walk from the weakest declaration to the strongest; each overrides what it contradicts.

    Among equals a later row overrides an earlier one if both speak of the same site; two rows that
    reach one tied parameter by different names only are a conflict, unless they agree.
    """
    standing: list[_Word] = []
    overrode: list[str] = []
    passed_over = ""
    for rank, source, sites in _by_strength(parameter, table):
        for rule in source.rules:
            covered = [s for s in sites if rule.selector.matches(parameter, s)]
            names = {s.name for s in covered if rule.acts_on_role(parameter, s)}
            if covered and not names:
                passed_over = f"{source.kind} {rule.key}"
            if not names:
                continue
            keep = [w for w in standing if w.rank == rank and w.names.isdisjoint(names)]
            overrode += [str(word) for word in standing if word not in keep]
            said = source.describe(rule), source.says(rule)
            standing = [*keep, _Word(rank, names, rule.regularizer, *said)]
    if not standing:
        return Decision(passed_over=passed_over)
    last = standing[-1]
    for word in standing[:-1]:
        if word.regularizer != last.regularizer:
            both = [*sorted(word.names), *sorted(last.names)]
            raise ConflictError(both, str(word), str(last))
    return Decision(last.regularizer, last.declared_at, tuple(overrode), rule=last.rule)


def _by_strength(
    parameter: Parameter, table: Table
) -> Iterator[tuple[int, Table, tuple[Site, ...]]]:
    """The tables that speak of this parameter, weakest first: (rank, table, sites)."""
    yield 0, table, parameter.sites
    for scope in _scopes_of(parameter):
        yield 1, scope, tuple(site for site in parameter.sites if scope in site.scopes)
    for site in parameter.sites:
        if site.declared is not None:
            yield 2, site.declared, (site,)


def _scopes_of(parameter: Parameter) -> list[Table]:
    """The distinct scopes around its sites, outermost first.

    Scopes are equal by value, since copies of a model carry copies of them. One that was entered
    again, as by a recursive builder, stands where it is innermost.
    """
    if not any(site.scopes for site in parameter.sites):
        return []
    found: list[Table] = []
    for level in reversed(range(max(len(site.scopes) for site in parameter.sites))):
        for site in reversed(parameter.sites):
            if level < len(site.scopes) and site.scopes[level] not in found:
                found.append(site.scopes[level])
    return found[::-1]


def _check_matches(parameters: Sequence[Parameter], table: Table) -> None:
    for rule in table.rules:
        _check_rule(rule, parameters, parameters, table)
    inside: dict[Table, list[Parameter]] = {}
    for parameter in parameters:
        for scope in _scopes_of(parameter):
            inside.setdefault(scope, []).append(parameter)
    for scope, members in inside.items():
        for rule in scope.rules:
            # A scope says what holds for whatever is built inside; only its names can be typos.
            if any(isinstance(leaf, Named) for leaf in rule.selector.leaves()):
                _check_rule(rule, members, parameters, scope)


def _check_rule(
    rule: Rule, parameters: Sequence[Parameter], known: Sequence[Parameter], table: Table
) -> None:
    """Every selector in the rule must match something, and the rule as a whole must act."""
    if rule.selector.by_role_alone:
        return
    for selector in [*rule.selector.leaves(), rule.selector]:
        if isinstance(selector, HasRole) and selector is not rule.selector:
            continue  # ``named("head") & biases``: the whole is checked, and hints better
        if not any(selector.matches(p, s) for p in parameters for s in p.sites):
            raise NoMatchError(selector, table.describe(rule), selector.hint(known))
    covered = [(p, s) for p in parameters for s in p.sites if rule.selector.matches(p, s)]
    if not any(rule.acts_on_role(p, s) for p, s in covered):
        parameter, site = covered[0]
        role = everything if parameter.role is Role.OTHER else HasRole(parameter.role)
        raise NoMatchError(
            rule.selector,
            table.describe(rule),
            "A rule that mentions no role acts on kernels only, and it covers none: "
            f"{site.name!r} has the role {parameter.role.value}. Name the parameter in full, or "
            f"say the role: {rule.selector!r} & {role!r}.",
        )
