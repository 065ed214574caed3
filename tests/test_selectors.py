"""Which parameters a selector names."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penalize import (
    Role,
    SelectorError,
    biases,
    embeddings,
    everything,
    kernels,
    named,
    norms,
    of_type,
    where,
)
from penalize.names import nearest
from penalize.parameters import Parameter, Site
from penalize.selectors import Selector


class Block: ...


class Linear: ...


class WideLinear(Linear): ...


def parameter(name: str, role: Role = Role.KERNEL, enclosing: tuple[type, ...] = ()) -> Parameter:
    return Parameter((Site(name, enclosing),), role, (3, 4))


def selects(selector: Selector, name: str, **kwargs: Any) -> bool:
    p = parameter(name, **kwargs)
    return selector.matches(p, p.sites[0])


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("encoder", "encoder.0.weight", True),
        ("encoder", "encoder", True),
        ("encoder", "encoder2.weight", False),
        ("encoder", "my.encoder.weight", False),
        ("encoder/0", "encoder.0.weight", True),
        ("encoder.0", "encoder.01.weight", False),
        ("encoder.*.weight", "encoder.0.weight", True),
        ("encoder.*.weight", "encoder.0.1.weight", False),
        ("encoder.*", "encoder.0.weight", True),
        ("encoder.*", "encoder", False),
        ("encoder.layer*", "encoder.layer12.weight", True),
        ("**.weight", "weight", True),
        ("**.weight", "a.b.c.weight", True),
        ("**.weight", "a.b.c.bias", False),
        ("a.**.weight", "a.weight", True),
        ("a.**.weight", "a.b.c.weight", True),
        ("a.**.weight", "b.a.weight", False),
        ("**.attn", "h.0.attn.q.weight", True),
        ("a.**", "a.b.c", True),
        ("a.+", "a.b", False),
        ("a.b", "a.bias", False),
        ("heads.en/fr", "heads.en/fr.weight", True),
    ],
)
def test_named(pattern: str, name: str, expected: bool) -> None:
    assert selects(named(pattern), name) is expected


@given(st.lists(st.text("ab0_", min_size=1, max_size=3), min_size=1, max_size=5), st.data())
def test_a_name_matches_itself_and_everything_below(parts: list[str], data: st.DataObject) -> None:
    name = ".".join(parts)
    end = data.draw(st.integers(1, len(parts)))
    assert selects(named(".".join(parts[:end])), name)
    assert selects(named("/".join(parts[:end])), name)
    stars = [data.draw(st.sampled_from([part, "*"])) for part in parts[:end]]
    assert selects(named(".".join(stars)), name)
    assert selects(named(".".join(["**", *parts[end - 1 :]])), name)
    assert not selects(named(name + "x"), name)
    assert not selects(named(name + ".x"), name)


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("encoder.0.bias", "encoder.0.bias", True),
        ("encoder.0", "encoder.0.bias", False),
        ("encoder/0/bias", "encoder.0.bias", True),
        ("encoder.*.bias", "encoder.0.bias", False),
        ("**.bias", "encoder.0.bias", False),
        ("encoder.0.*", "encoder.0.bias", False),
        ("**", "encoder.0.bias", False),
    ],
)
def test_naming_a_parameter_in_full(pattern: str, name: str, expected: bool) -> None:
    assert named(pattern).names_in_full(Site(name)) is expected


def test_naming_in_full_through_combinations() -> None:
    site = Site("a.bias")
    assert (named("a.bias") & everything).names_in_full(site)
    assert (kernels | named("a.bias")).names_in_full(site)
    assert not (~named("a.bias")).names_in_full(site)


def test_roles() -> None:
    for selector, role in (
        (kernels, Role.KERNEL),
        (biases, Role.BIAS),
        (norms, Role.NORM),
        (embeddings, Role.EMBEDDING),
    ):
        for other in Role:
            assert selects(selector, "w", role=other) is (other is role)
        assert selector.mentions_role
    assert all(selects(everything, "w", role=role) for role in Role)
    assert everything.mentions_role
    assert (named("a") & ~biases).mentions_role
    assert not (named("a") | of_type(Linear)).mentions_role


def test_types_match_subclasses_and_everything_below() -> None:
    assert selects(of_type(Linear), "w", enclosing=(Block, WideLinear))
    assert selects(of_type(Block), "w", enclosing=(Block, Linear))
    assert not selects(of_type(WideLinear), "w", enclosing=(Block, Linear))
    assert selects(of_type(WideLinear, Block), "w", enclosing=(Block, Linear))


def test_where_sees_the_record() -> None:
    assert selects(where(lambda p: p.size > 11 and p.ndim == 2 and p.name == "w"), "w")
    assert not selects(where(lambda p: p.size > 12), "w")


def test_algebra() -> None:
    a_kernel = "a" & kernels
    assert selects(a_kernel, "a.w")
    assert not selects(a_kernel, "a.b", role=Role.BIAS)
    assert not selects(a_kernel, "b.w")
    assert selects("a" | biases, "b.b", role=Role.BIAS)
    assert selects(biases | "a", "a.w")
    assert selects(~named("a"), "b.w")
    assert named("a") & biases == "a" & biases
    assert hash(named("a") & biases) == hash(named("a") & biases)
    assert (named("a") & biases) != (named("a") | biases)
    again = pickle.loads(pickle.dumps(~(named("a") & of_type(Linear))))
    assert again == ~(named("a") & of_type(Linear))


def test_readable_repr() -> None:
    selector = (named("a") | biases) & ~(norms & of_type(Linear, Block))
    assert repr(selector) == "(named('a') | biases) & ~(norms & of_type(Linear, Block))"
    assert repr(embeddings | everything) == "embeddings | everything"

    def is_big(p: Parameter) -> bool:
        return p.size > 10

    assert repr(where(is_big)).endswith("is_big)")
    assert repr(where(lambda p: True)).startswith("where(lambda at test_selectors.py:")


@pytest.mark.parametrize("pattern", ["", ".", "a..b", "a.", "/a", 3, None])
def test_bad_names(pattern: Any) -> None:
    with pytest.raises(SelectorError, match="is not a name"):
        named(pattern)


def test_bad_types_and_predicates() -> None:
    with pytest.raises(SelectorError, match="was not given types"):
        of_type("Linear")
    with pytest.raises(SelectorError, match="was not given types"):
        of_type()
    with pytest.raises(SelectorError, match="nothing to call"):
        where("size")
    with pytest.raises(SelectorError, match=r"write of_type\(Linear\)"):
        kernels & Linear
    with pytest.raises(SelectorError, match="3 \\(int\\) selects no parameters"):
        kernels | 3


def test_nearest_names() -> None:
    names = ["encoder.layers.0.weight", "decoder.head.weight", "decoder.head.bias"]
    assert nearest("encoder.layer.0.weight", names)[0] == "encoder.layers.0.weight"
    assert "encoder" in nearest("encoer", names)
    assert nearest("head", names)[0] == "decoder.head"
    assert nearest("zzz", names) == []
