"""Rules for the outputs of modules, resolved against the modules of a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import nn
from torch.jit import ScriptModule

from penalize import names
from penalize.errors import (
    ConflictError,
    ModelError,
    NoGradientError,
    NoMatchError,
    RulesError,
    SelectorError,
    some,
)
from penalize.regularizers.base import Regularizer
from penalize.regularizers.place import Place
from penalize.rules import Rule, Table
from penalize.selectors import And, Named, Not, OfType, Or, Selector, as_selector
from penalize.torch.model.parameters import is_wrapped, walk

ActivityRules = Mapping[Any, Regularizer | None] | Sequence[tuple[Any, Regularizer | None]]
"""What users write as ``activities=``: a mapping or list of pairs, selector → regularizer."""


class Activity(NamedTuple):
    """One module whose outputs are penalized: a row of ``plan.activities``."""

    name: str
    """The path of the module, without wrappers; the name of its class for the model itself."""

    regularizer: Regularizer
    """What its outputs are given to."""

    declared_at: str
    """The row of ``activities=`` that won."""

    aliases: tuple[str, ...] = ()
    """The further paths of a module that is shared: each of its calls counts."""


class _Candidate(NamedTuple):
    module: nn.Module
    names: list[str]
    scripted: bool


def chosen(model: nn.Module, rules: Any, place: str) -> list[tuple[nn.Module, Activity]]:
    """The modules whose outputs are penalized, each once, in the model's order.

    Raises:
        RulesError, SelectorError: the rules are malformed, or select parameters.
        NoMatchError: a selector matches no module that is ever called.
        ConflictError: two rows disagree on a shared module, each by another of its names.
        GroupsError, AnchorError: a regularizer has no meaning on an output.
        NoGradientError: a regularizer cannot act through a gradient.
        ModelError: a module is scripted, so that no hook of it runs.
    """
    table = Table(tuple(_rows(rules)), "activity", place)
    if not table.rules:
        return []
    candidates, silent = _candidates(model)
    for rule in table.rules:
        _check_matches(rule, candidates, silent, table)
    found = ((c, _decided(c, table)) for c in candidates)
    return [(c.module, _activity(c, rule, table)) for c, rule in found if rule is not None]


def _rows(rules: Any) -> Iterable[Rule]:
    if isinstance(rules, Regularizer):
        raise _malformed(
            f"activities is {rules!r}, for no module",
            f"Name the modules: activities={{of_type(nn.ReLU): {rules!r}}}.",
        )
    rows = list(rules.items()) if isinstance(rules, Mapping) else rules
    if isinstance(rows, str) or not isinstance(rows, Iterable):
        raise _malformed(f"activities is {rules!r}, a {type(rules).__name__}")
    for row in rows:
        if not (isinstance(row, tuple | list) and len(row) == 2):
            raise _malformed(f"A row of activities is {row!r}, a {type(row).__name__}")
        selector, value = as_selector(row[0]), row[1]
        for leaf in selector.leaves():
            if not isinstance(leaf, Named | OfType):
                raise SelectorError(
                    f"{leaf!r} selects parameters, and activities= takes modules",
                    'of_type(nn.ReLU), the name of a module such as "encoder.3", or a combination '
                    "of these",
                )
        if not (value is None or isinstance(value, Regularizer)):
            raise _malformed(f"The activity of {row[0]!r} is {value!r}, a {type(value).__name__}")
        yield Rule(selector, value)


def _malformed(found: str, instead: str = "Write {of_type(nn.ReLU): L1(1e-5)}.") -> RulesError:
    expected = "a mapping or list of pairs from selector of modules to regularizer or None"
    return RulesError(found, instead, expected)


def _candidates(model: nn.Module) -> tuple[list[_Candidate], dict[str, str]]:
    """The modules that can be called, and the types of the others by name."""
    found: dict[int, _Candidate] = {}
    silent: dict[str, str] = {}
    for path, enclosing, module in walk(model, (), ()):
        name = ".".join(path)
        if any(is_wrapped(module, child) for child, _ in module._modules.items()):
            continue  # what it wraps has its name
        scripted = any(issubclass(t, ScriptModule) for t in enclosing)
        if not scripted and type(module).forward is nn.Module.forward:
            silent[name] = type(module).__name__
            continue
        candidate = found.setdefault(id(module), _Candidate(module, [], scripted))
        if name not in candidate.names:
            candidate.names.append(name)
    return list(found.values()), silent


def _selects(selector: Selector, module: nn.Module, name: str) -> bool:
    if isinstance(selector, Named):  # the module itself, not what is below it
        pattern = names.compile_pattern(selector.pattern)
        return bool(name) and pattern.fullmatch(names.ended(name)) is not None
    if isinstance(selector, OfType):
        return isinstance(module, selector.types)
    if isinstance(selector, Not):
        return not _selects(selector.inner, module, name)
    assert isinstance(selector, And | Or)
    combined = all if isinstance(selector, And) else any
    return combined(_selects(part, module, name) for part in (selector.left, selector.right))


def _check_matches(
    rule: Rule, candidates: Sequence[_Candidate], silent: Mapping[str, str], table: Table
) -> None:
    for selector in [*rule.selector.leaves(), rule.selector]:
        if not any(_selects(selector, c.module, name) for c in candidates for name in c.names):
            hint = _hint(selector, candidates, silent)
            raise NoMatchError(selector, table.describe(rule), hint, "module")


def _hint(selector: Selector, candidates: Sequence[_Candidate], silent: Mapping[str, str]) -> str:
    known = [name for c in candidates for name in c.names if name]
    if isinstance(selector, Named):
        kind = silent.get(".".join(names.components(selector.pattern)))
        if kind is not None:
            return f"It is a {kind}, which is never called itself; name what it holds."
        near = [name for name in names.nearest(selector.pattern, known) if name in known]
        if near:
            return f"The nearest modules are {', '.join(map(repr, near))}."
    if isinstance(selector, OfType):
        kinds = sorted({type(c.module).__name__ for c in candidates})
        return f"The types of modules are {', '.join(kinds)}."
    if isinstance(selector, And):
        return "Each part matches something, but no module matches them all."
    return f"The modules are {some(known)}."


def _decided(candidate: _Candidate, table: Table) -> Rule | None:
    """The row that holds: later rows win where they speak of the same name."""
    standing: list[tuple[set[str], Rule]] = []
    for rule in table.rules:
        hit = {n for n in candidate.names if _selects(rule.selector, candidate.module, n)}
        if hit:
            standing = [(n, r) for n, r in standing if n.isdisjoint(hit)] + [(hit, rule)]
    for hit, rule in standing[:-1]:
        last = standing[-1][1]
        if rule.regularizer != last.regularizer:
            first, second = (f"{r.regularizer!r} by {table.describe(r)}" for r in (rule, last))
            by_name = [*sorted(hit), *sorted(standing[-1][0])]
            raise ConflictError(by_name, first, second, "shared module")
    if not standing or standing[-1][1].regularizer is None:
        return None
    return standing[-1][1]


def _activity(candidate: _Candidate, rule: Rule, table: Table) -> Activity:
    name, *aliases = (name or type(candidate.module).__name__ for name in candidate.names)
    if candidate.scripted:
        raise ModelError(
            f"{name!r} was scripted or traced, so no hook on its output would run",
            "plan the model that it was made from, or exempt it with a row that gives None",
        )
    assert rule.regularizer is not None
    regularizer = rule.regularizer.resolve(Place((name, *aliases)))
    if not regularizer.differentiable:
        where = f"the output of {name!r}"
        raise NoGradientError(regularizer, where, "An output needs a regularizer that has one")
    return Activity(name, regularizer, table.describe(rule), tuple(aliases))
