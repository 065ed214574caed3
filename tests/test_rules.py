"""Rules against records, without any framework."""

from __future__ import annotations

from typing import Any

import pytest

from penalize import (
    L1,
    L2,
    ConflictError,
    NoMatchError,
    Role,
    RulesError,
    SelectorError,
    biases,
    embeddings,
    everything,
    kernels,
    named,
    norms,
    of_type,
    rules,
    where,
)
from penalize.parameters import Parameter, Site
from penalize.rules import Decision, Table, parse, resolve


class Conv: ...


def p(*names: str, role: Role = Role.KERNEL, **site: Any) -> Parameter:
    return Parameter(tuple(Site(name, **site) for name in names), role, (3, 4))


MODEL = [
    p("encoder.0.weight"),
    p("encoder.0.bias", role=Role.BIAS),
    p("encoder.1.weight", role=Role.NORM),
    p("encoder2.weight"),
    p("head.weight"),
    p("head.bias", role=Role.BIAS),
]


def table(rules: Any) -> Table:
    return parse(rules, "rule", "t.py:1")


def decide(rules: Any, model: list[Parameter] = MODEL) -> dict[str, Decision]:
    return dict(zip([q.name for q in model], resolve(model, table(rules)), strict=True))


def penalized(rules: Any, model: list[Parameter] = MODEL) -> dict[str, Any]:
    decisions = decide(rules, model)
    return {name: d.regularizer for name, d in decisions.items() if d.regularizer is not None}


ALL_KERNELS = {name: L2(1.0) for name in ("encoder.0.weight", "encoder2.weight", "head.weight")}


@pytest.mark.parametrize(
    "rules", [L2(1.0), {kernels: L2(1.0)}, [(kernels, L2(1.0))], ((kernels, L2(1.0)),)]
)
def test_a_bare_regularizer_means_kernels(rules: Any) -> None:
    assert penalized(rules) == ALL_KERNELS


def test_later_rows_win() -> None:
    rules = {kernels: L2(1.0), "encoder": L1(1.0), "head.weight": None}
    assert penalized(rules) == {"encoder.0.weight": L1(1.0), "encoder2.weight": L2(1.0)}
    backwards = list(reversed(rules.items()))
    assert penalized(backwards) == ALL_KERNELS


def test_the_decision_says_who_won_and_what_it_overrode() -> None:
    decisions = decide({kernels: L2(1.0), "encoder": L1(1.0), "head": None})
    won = decisions["encoder.0.weight"]
    assert won.declared_at == "rule 'encoder' (t.py:1)"
    assert won.overrode == ("L2(1.0) by rule kernels (t.py:1)",)
    assert decisions["head.weight"].declared_at == "rule 'head' (t.py:1)"
    assert decisions["encoder.0.bias"] == Decision(passed_over="rule 'encoder'")


def test_a_rule_without_a_role_acts_on_kernels() -> None:
    assert penalized({"encoder": L1(1.0)}) == {"encoder.0.weight": L1(1.0)}
    assert list(penalized({where(lambda q: q.name.startswith("encoder")): L1(1.0)})) == [
        "encoder.0.weight",
        "encoder2.weight",
    ]


def test_a_rule_that_says_so_reaches_other_roles() -> None:
    assert penalized({"encoder.0.bias": L1(1.0)}) == {"encoder.0.bias": L1(1.0)}
    assert penalized({"*.bias" & biases: L1(1.0)}) == {"head.bias": L1(1.0)}
    assert list(penalized({"**.bias" & biases: L1(1.0)})) == ["encoder.0.bias", "head.bias"]
    assert penalized({"encoder" & biases: L1(1.0)}) == {"encoder.0.bias": L1(1.0)}
    assert penalized({norms: L1(1.0)}) == {"encoder.1.weight": L1(1.0)}
    assert len(penalized({everything: L1(1.0)})) == len(MODEL)
    assert list(penalized({~kernels: L1(1.0)})) == [
        "encoder.0.bias",
        "encoder.1.weight",
        "head.bias",
    ]


def test_a_pattern_names_no_parameter_in_full() -> None:
    """``**.weight`` is no way of saying "norms too"."""
    assert penalized({"**.weight": L2(1.0)}) == ALL_KERNELS
    with pytest.raises(NoMatchError, match=r"named\('\*\*\.bias'\) & biases"):
        decide({"**.bias": L2(1.0)})


def test_none_exempts_every_role_below() -> None:
    rules = {everything: L1(1.0), "encoder": None}
    assert list(penalized(rules)) == ["encoder2.weight", "head.weight", "head.bias"]


@pytest.mark.parametrize(
    ("rules", "hint"),
    [
        ({"encodr": L1(1.0)}, "nearest names are 'encoder'"),
        ({"encodr": None}, "nearest names are 'encoder'"),
        ({kernels: L2(1.0), "weight": L1(1.0)}, "'encoder.0.weight'"),
        ({named("encoder") | named("hed"): L1(1.0)}, "'head'"),
        ({kernels & ~named("hed"): L1(1.0)}, "'head'"),
        ({"zzz": L1(1.0)}, "names begin with 'encoder', 'encoder2', 'head'"),
        ({named("head") & embeddings: L1(1.0)}, "no parameter matches them all"),
        ({embeddings | named("hed"): L1(1.0)}, "'head'"),
        ({of_type(Conv): L1(1.0)}, "modules that hold parameters are"),
        ({where(lambda q: q.size > 99): L1(1.0)}, "The parameters are 'encoder.0.weight'"),
        ({"head.bias" & kernels: L1(1.0)}, "no parameter matches them all"),
        ({"encoder.1": L1(1.0)}, "named('encoder.1') & norms"),
    ],
)
def test_a_selector_that_matches_nothing(rules: Any, hint: str) -> None:
    with pytest.raises(NoMatchError) as caught:
        decide(rules)
    assert hint in str(caught.value)
    assert "t.py:1" in str(caught.value)


def test_a_role_that_is_not_there_is_no_misprint() -> None:
    rules = {everything: L2(1.0), embeddings: None, embeddings & ~kernels: L1(1.0), biases: None}
    decisions = decide(rules)
    assert {name for name, d in decisions.items() if d.regularizer} == {
        *ALL_KERNELS,
        "encoder.1.weight",
    }
    assert {d.idle for d in decisions.values()} == {("embeddings", "embeddings & ~kernels")}
    assert decide({kernels: L2(1.0)})["head.bias"].idle == ()
    assert decide({embeddings: L1(1.0)})["head.bias"] == Decision(idle=("embeddings",))


def test_the_hint_for_an_other_role_can_be_typed_in() -> None:
    model = [p("w", role=Role.OTHER), p("b", role=Role.BIAS)]
    with pytest.raises(NoMatchError, match=r"of_type\(Conv\) & everything"):
        decide({of_type(Conv): L1(1.0)}, [p("m.scale", role=Role.OTHER, enclosing=(Conv,)), *model])


@pytest.mark.parametrize(
    ("rules", "error", "message"),
    [
        (1e-4, RulesError, r"Write L2\(0.0001\)"),
        ("encoder", RulesError, "a str"),
        (L1, RulesError, r"Write L1\(1e-4\)"),
        ({"encoder": 1e-4}, RulesError, r"The rule for 'encoder' is 0.0001.*Write L2\(0.0001\)"),
        ({"encoder": L1}, RulesError, r"Write L1\(1e-4\)"),
        ({"encoder": "L1"}, RulesError, "a str"),
        ([kernels, L1(1.0)], RulesError, "A row is kernels"),
        ([("a", L1(1.0), 3)], RulesError, "A row is"),
        ({3: L1(1.0)}, SelectorError, "selects no parameters"),
        ({Conv: L1(1.0)}, SelectorError, r"of_type\(Conv\)"),
        ({"": L1(1.0)}, SelectorError, "is not a name"),
        (object(), RulesError, "a object"),
    ],
)
def test_malformed_rules(rules: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        table(rules)


# --- ties -----------------------------------------------------------------------------------

TIED = [p("wte.weight", "head.weight", role=Role.EMBEDDING), p("mlp.weight")]


def test_any_alias_names_a_tied_parameter() -> None:
    for name in ("wte.weight", "head.weight"):
        assert penalized({name: L1(1.0)}, TIED) == {"wte.weight": L1(1.0)}


def test_a_later_row_overrides_a_general_one_on_a_tied_parameter() -> None:
    assert penalized({embeddings: L2(1.0), "head.weight": L1(1.0)}, TIED)["wte.weight"] == L1(1.0)
    assert penalized({"head.weight": L1(1.0), embeddings: L2(1.0)}, TIED)["wte.weight"] == L2(1.0)


def test_rows_that_reach_it_by_different_names_must_agree() -> None:
    agreeing = {"wte.weight": L1(1.0), "head.weight": L1(1.0)}
    assert penalized(agreeing, TIED) == {"wte.weight": L1(1.0)}
    for first, second in ((L1(1.0), L2(1.0)), (L1(1.0), None), (None, L1(1.0))):
        with pytest.raises(ConflictError) as caught:
            decide({"wte.weight": first, "head.weight": second}, TIED)
        assert "'wte.weight'" in str(caught.value)
        assert "'head.weight'" in str(caught.value)
        assert f"{first!r} by rule 'wte.weight'" in str(caught.value)
    settled = {
        "wte.weight": L1(1.0),
        "head.weight": None,
        named("wte.weight") | named("head.weight"): L2(1.0),
    }
    assert penalized(settled, TIED) == {"wte.weight": L2(1.0)}


# --- ranks ----------------------------------------------------------------------------------


def scope(rules: Any, place: str = "s.py:1") -> Table:
    return parse(rules, "scope", place)


def declared(regularizer: Any) -> Table:
    return parse({everything: regularizer}, "declare", "d.py:1")


def test_the_most_local_declaration_wins() -> None:
    outer, inner = scope(L1(2.0)), scope(L1(3.0), "s.py:2")
    rules = {kernels: L1(1.0)}
    for site, expected in (
        ({}, L1(1.0)),
        ({"scopes": (outer,)}, L1(2.0)),
        ({"scopes": (outer, inner)}, L1(3.0)),
        ({"scopes": (outer, inner), "declared": declared(L1(4.0))}, L1(4.0)),
        ({"scopes": (outer, scope({everything: None}))}, None),
        ({"declared": declared(None)}, None),
    ):
        model = [p("w", **site), p("v")]
        assert decide(rules, model)["w"].regularizer == expected
    full = decide(rules, [p("w", scopes=(outer, inner), declared=declared(L1(4.0)))])["w"]
    assert full.declared_at == "declare (d.py:1)"
    assert [o.split(" by ")[0] for o in full.overrode] == ["L1(1.0)", "L1(2.0)", "L1(3.0)"]


def test_scopes_that_disagree_on_a_tied_parameter() -> None:
    sites = (
        Site("a.weight", scopes=(scope(L1(1.0)),)),
        Site("b.weight", scopes=(scope(L2(1.0), "s.py:9"),)),
    )
    model = [Parameter(sites, Role.KERNEL, (3, 4))]
    with pytest.raises(ConflictError, match=r"s\.py:1.*s\.py:9"):
        resolve(model, table({}))
    one = scope(L1(1.0))
    same = (Site("a.weight", scopes=(one,)), Site("b.weight", scopes=(one,)))
    decision = resolve([Parameter(same, Role.KERNEL, (3, 4))], table({}))[0]
    assert decision.regularizer == L1(1.0)


def test_declarations_that_disagree_on_a_tied_parameter() -> None:
    sites = (
        Site("a.weight", declared=declared(L1(1.0))),
        Site("b.weight", declared=declared(L2(1.0))),
    )
    with pytest.raises(ConflictError):
        resolve([Parameter(sites, Role.KERNEL, (3, 4))], table({}))


def test_a_scope_checks_its_names_only() -> None:
    fine = scope({biases: L1(1.0), kernels: L2(1.0)})
    assert decide({}, [p("w", scopes=(fine,))])["w"].regularizer == L2(1.0)
    with pytest.raises(NoMatchError, match="'encoder'"):
        decide({}, [p("encoder.w", scopes=(scope({"encodr": L1(1.0)}),))])


# --- many parameters ------------------------------------------------------------------------


def test_what_rules_say_alike_is_decided_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing but these rules has a say; ties and declarations are decided one by one."""
    asked = []
    decide_one = rules._decide
    monkeypatch.setattr(rules, "_decide", lambda *args: asked.append(args) or decide_one(*args))
    ends = [("weight", Role.KERNEL), ("bias", Role.BIAS)]
    many = [p(f"{i}.{end}", role=role) for i in range(50) for end, role in ends]
    declared = p("last", declared=parse(L2(3.0), "declare", "t.py:2"))
    tied = p("0.tied", "1.tied")
    found = decide({kernels: L2(1.0), "7": L1(2.0)}, [*many, tied, declared])
    assert len(asked) == 4 + 2
    assert found["3.weight"].regularizer == L2(1.0)
    assert found["7.weight"].regularizer == L1(2.0)
    assert found["7.bias"].passed_over
    assert not found["8.bias"].passed_over
    assert found["last"].regularizer == L2(3.0)
    assert found["0.tied"].regularizer == L2(1.0)
