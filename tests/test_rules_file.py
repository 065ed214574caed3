"""Rules in TOML files: the round trip, what cannot be written, and what cannot be read."""

import tomllib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from penalize import (
    L0,
    L1,
    L1L2,
    L2,
    MCP,
    Box,
    Custom,
    ExclusiveLasso,
    FusedLasso,
    GroupLasso,
    Huber,
    MaxNorm,
    NonNegative,
    NuclearNorm,
    RulesError,
    SparseGroupLasso,
    biases,
    blocks,
    cosine,
    embeddings,
    everything,
    kernels,
    named,
    norms,
    of_type,
    piecewise,
    read_rules,
    search,
    step,
    toward,
    warmup,
    where,
    write_rules,
)
from penalize.rules import parse
from penalize.torch import regularize

SELECTORS = st.recursive(
    st.sampled_from(
        [
            *(kernels, biases, norms, embeddings, everything),
            named("encoder"),
            named("**.weight"),
            named('odd "name"/\\x'),
            named("ключ"),
            of_type(nn.Linear, nn.Conv2d),
            of_type(torch.nn.modules.batchnorm._BatchNorm),
        ]
    ),
    lambda inner: st.one_of(
        st.builds(lambda a, b: a & b, inner, inner),
        st.builds(lambda a, b: a | b, inner, inner),
        st.builds(lambda a: ~a, inner),
    ),
    max_leaves=6,
)
POSITIVE = st.floats(0, 1e6, allow_nan=False)
REGULARIZERS = st.recursive(
    st.one_of(
        st.builds(L1, POSITIVE),
        st.builds(L2, POSITIVE),
        st.builds(L1L2, POSITIVE, POSITIVE),
        st.builds(GroupLasso, POSITIVE, st.sampled_from(["inputs", 0, (0, 1), [[0, 1], [2]]])),
        st.sampled_from(
            [
                GroupLasso(1e-3, groups=blocks("outputs", 12), size_weighted=False),
                SparseGroupLasso(0.1, 0.25),
                Huber(1.0, delta=0.1),
                MCP(0.1),
                L0(1e-3),
                NuclearNorm(1.0, rows="inputs"),
                FusedLasso(0.5, axis=-1),
                ExclusiveLasso(0.5),
                NonNegative(),
                Box(-1.0, float("inf")),
                MaxNorm(2.0, groups=1),
                L1(search(1e-6, 1e-2)),
                L2(1e-4) * warmup(100),
                L1(1e-4) * cosine(0.0, 1.0, 50, 10),
                (L1(0.5) + L2(0.25)) * piecewise({0: 1.0, 10: 0.5}),
                L1(1.0) * step(10, 0.5),
            ]
        ),
    ),
    lambda inner: st.builds(lambda a, b: a + b, inner, inner),
    max_leaves=3,
)


@given(rules=st.lists(st.tuples(SELECTORS, st.none() | REGULARIZERS), max_size=4))
def test_what_is_read_is_what_was_written(rules, tmp_path_factory):
    file = tmp_path_factory.mktemp("rules") / "rules.toml"
    write_rules(rules, file)
    assert read_rules(file) == rules
    assert [p.name for p in file.parent.iterdir()] == ["rules.toml"]


@pytest.mark.parametrize("rules", [L2(1e-4), {"encoder": L1(1e-5), "head.weight": None}])
def test_every_form_of_rules_is_written(rules, tmp_path):
    write_rules(rules, tmp_path / "rules.toml")
    found = read_rules(tmp_path / "rules.toml")
    assert parse(found, "rule", "") == parse(rules, "rule", "")


def test_a_file_by_hand_makes_the_plan_of_the_same_python(tmp_path):
    file = tmp_path / "rules.toml"
    file.write_text(
        """
        # the encoder is thinned out
        [[rules]]
        select = "kernels"
        penalty = "L2.from_weight_decay(1e-2)"
        [[rules]]
        select = "'0'"
        penalty = 'L1(1e-5) + 2 * GroupLasso(1e-3, groups="outputs")'
        [[rules]]
        select = "of_type(torch.nn.Linear) & biases"
        penalty = "L2(-0.0)"
        """
    )
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    rules = [
        (kernels, L2.from_weight_decay(1e-2)),
        ("0", L1(1e-5) + GroupLasso(2e-3, groups="outputs")),
        (of_type(nn.Linear) & biases, L2(0.0)),
    ]
    there = [row.regularizer for row in regularize(model, read_rules(file)).rows]
    assert there == [row.regularizer for row in regularize(model, rules).rows]


@pytest.mark.parametrize(
    ("selector", "regularizer"),
    [
        (where(lambda p: p.size > 3), L2(1.0)),
        (kernels, Custom(torch.sum)),
        (kernels, toward("start", L2(1.0))),
        (kernels, L2(1.0) * (lambda t: 1.0)),
    ],
    ids=["where", "Custom", "toward", "schedule"],
)
def test_what_is_not_names_and_numbers_is_refused_and_the_old_file_stays(
    selector, regularizer, tmp_path
):
    file = tmp_path / "rules.toml"
    write_rules(L2(1.0), file)
    before = file.read_bytes()
    if regularizer == toward("start", L2(1.0)):  # a reference by name is a word like any other
        write_rules([(selector, regularizer)], file)
        assert read_rules(file) == [(selector, regularizer)]
        return
    with pytest.raises(
        RulesError, match=r"cannot be written into a file.*Keep this rule in Python"
    ):
        write_rules([(kernels, L2(1.0)), (selector, regularizer)], file)
    assert file.read_bytes() == before


def rule(select: str, penalty: str) -> str:
    return f"[[rules]]\nselect = '''{select}'''\npenalty = '''{penalty}'''\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[rules]", "cannot be read"),
        ("", r"has \[\]"),
        ("rules = 3", r"has \['rules'\]"),
        ("strength = 3\n" + rule("kernels", "L2(1.0)"), r"has \['rules', 'strength'\]"),
        ("[[rules]]\nselect = 'kernels'", "rule 1 of .* is {'select': 'kernels'}"),
        (
            rule("kernels", "L2(1.0)") + rule("kernls", "L2(1.0)"),
            "select in rule 2.*kernls is none",
        ),
        (rule("L2(1.0)", "L2(1.0)"), "select in rule 1.*expected a selector"),
        (rule("kernels", "kernels"), "penalty in rule 1.*expected a regularizer or None"),
        (rule("kernels", "0.1"), "expected a regularizer or None"),
        ("[[rules]]\nselect = 'kernels'\npenalty = 0.1", "penalty in rule 1.* is 0.1; .*in quotes"),
        (rule("kernels", "L2.from_nothing(1.0)"), "no attribute 'from_nothing'"),
        (rule("kernels", "L2(-1)"), "L2 got strength=-1"),
        (rule("kernels", "L2(1.0"), "never closed"),
        (rule("kernels", "L2(strenth=1.0)"), "unexpected keyword"),
        (rule("kernels", "__import__('os').system('true')"), "cannot stand here|cannot be called"),
        (rule("kernels", "L2.__class__(1)"), "cannot stand here"),
        (rule("kernels", "(lambda: L2(1.0))()"), "cannot stand here"),
        (rule("kernels", "L2(**{'strength': 1.0})"), "cannot be called"),
        (rule("kernels", "where(1)"), "where is none of"),
        (rule("of_type(torch.nn.Lineer)", "L2(1.0)"), "of_type.torch.nn.Lineer"),
        (rule("of_type(os)", "L2(1.0)"), "of_type.os"),
        (rule("of_type(os.path)", "L2(1.0)"), "it is no class"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_rule(text, said, tmp_path):
    file = tmp_path / "rules.toml"
    file.write_text(text)
    with pytest.raises(RulesError, match=f"(?s){said}"):
        read_rules(file)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(RulesError, match=r"cannot be read: .*No such file"):
        read_rules(tmp_path / "rules.toml")


def test_a_file_that_cannot_be_written(tmp_path):
    with pytest.raises(RulesError, match=r"cannot be written: .*Name a file in a folder"):
        write_rules(L2(1.0), tmp_path / "none" / "rules.toml")
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(RulesError, match="cannot be written"):
        write_rules(L2(1.0), folder)
    assert list(folder.iterdir()) == []
    assert list(tmp_path.iterdir()) == [folder]


def test_the_file_is_toml_that_others_read(tmp_path):
    write_rules({"encoder": L1(1e-5)}, tmp_path / "rules.toml")
    found = tomllib.loads((tmp_path / "rules.toml").read_text())
    assert found == {"rules": [{"select": "named('encoder')", "penalty": "L1(1e-05)"}]}
