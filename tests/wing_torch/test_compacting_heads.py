"""Heads of attention go as a whole, with what the code of a model calls their number."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from wing_torch.test_compacting import apart, double, left, silence
from wing_torch.test_compacting_attacks import answers, draw

from penalize.errors import NothingToCutWarning

pytestmark = pytest.mark.filterwarnings("ignore::penalize.errors.NothingToCutWarning")


def eager(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1) @ v


def by_letters(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    shares = (torch.einsum("bhqd,bhkd->bhqk", q, k) / 2).softmax(-1)
    return torch.einsum("bhqk,bhkd->bhqd", shares, v)


def rotated(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """With cosines and sines of places."""
    angles = torch.arange(q.shape[2])[:, None] * torch.tensor([1.0, 0.1, 1.0, 0.1])

    def turned(x: Tensor) -> Tensor:
        half = torch.cat([-x[..., 2:], x[..., :2]], -1)
        return x * angles.cos() + half * angles.sin()

    return functional.scaled_dot_product_attention(turned(q), turned(k), v)


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
    return functional.scaled_dot_product_attention(q, k, v, mask)


WAYS: dict[str, Callable[..., Tensor]] = {
    "eager": eager,
    "by letters": by_letters,
    "rotated": rotated,
    "causal": causal,
    "fused": functional.scaled_dot_product_attention,
}


class Attention(nn.Module):
    """As many heads as channels in each, so that their number looks like another."""

    def __init__(self, way: Callable[..., Tensor] = eager, heads: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.num_heads, self.head_dim, self.depth = heads, 4, heads
        self.q, self.k, self.v = (nn.Linear(5, 4 * heads) for _ in range(3))
        self.out = nn.Linear(4 * heads, 3)
        self.way = way
        double(self)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (each(x).unflatten(-1, self.shape).transpose(1, 2) for each in self.maps)
        return self.out(self.way(q, k, v).transpose(1, 2).flatten(2))

    @property
    def shape(self) -> tuple[int, int]:
        return self.num_heads, self.head_dim

    @property
    def maps(self) -> tuple[nn.Linear, ...]:
        return self.q, self.k, self.v


def channels(*heads: int) -> list[int]:
    return [4 * h + i for h in heads for i in range(4)]


def heads(found: Any) -> int:
    sizes = left(found)
    assert sizes["q"] == sizes["k"] == sizes["v"] == found.model.out.in_features
    assert found.model.num_heads * 4 == sizes["q"]
    return found.model.num_heads


@pytest.mark.parametrize("way", WAYS)
def test_a_head_goes_that_nobody_hears_or_that_is_constant(way: str) -> None:
    model = Attention(WAYS[way])
    silence(model.out.weight, channels(1), 1)
    silence(model.v.weight, channels(2))
    found = answers(model, draw(2, 5, 5), draw(3, 7, 5), draw(1, 2, 5))
    assert heads(found) == 2
    assert (found.model.head_dim, found.model.depth) == (4, 4)
    added = model.out.weight[:, channels(2)] @ model.v.bias[channels(2)]
    torch.testing.assert_close(found.model.out.bias, model.out.bias + added)


def without(model: Attention, head: int) -> Attention:
    """The naive way: a head is dropped, and what it adds with it."""
    found = copy.deepcopy(model)
    rest = channels(*(h for h in range(4) if h != head))
    for each in found.maps:
        each.weight, each.bias = (nn.Parameter(w[rest]) for w in (each.weight, each.bias))
    found.out.weight = nn.Parameter(found.out.weight[:, rest])
    found.num_heads = 3
    return found


def test_what_is_not_the_same() -> None:
    """A constant head adds something, and one without keys is a mean, and not nothing."""
    x = draw(2, 5, 5)
    model = Attention()
    silence(model.v.weight, channels(2))
    assert apart(model, without(model, 2), x) > 1e-2
    model = Attention()
    for each in (model.q, model.k):
        silence(each.weight, channels(2))
        silence(each.bias, channels(2))
    assert apart(model, without(model, 2), x) > 1e-2
    found = answers(model, x, draw(3, 7, 5))
    assert heads(found) == 4
    assert "4: it changes with the input" in str(found)


@given(*(st.sets(st.integers(0, 15)) for _ in range(2)), st.sets(st.integers(0, 3)), st.booleans())
@settings(max_examples=4)
def test_any_zeros(values: set[int], unheard: set[int], whole: set[int], bias: bool) -> None:
    model = Attention(functional.scaled_dot_product_attention)
    silence(model.v.weight, [*values, *channels(*whole)])
    silence(model.out.weight, [*unheard], 1)
    if not bias:
        silence(model.v.bias, range(16))
    dead = values | unheard | {*channels(*whole)}
    goes = sum({*channels(h)} <= dead for h in range(4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NothingToCutWarning)
        assert heads(answers(model, draw(2, 5, 5), draw(3, 7, 5))) == max(4 - goes, 1)


@pytest.mark.parametrize(("bias", "after"), [(False, 3), (True, 4)])
def test_a_mask_may_hide_everything(bias: bool, after: int) -> None:
    """There PyTorch's attention gives 0, and no mean of constants."""

    class Masked(Attention):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            def way(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
                return functional.scaled_dot_product_attention(q, k, v, mask[:, None, None])

            self.way = way
            return super().forward(x)

    model = Masked()
    silence(model.v.weight, channels(2))
    if not bias:
        silence(model.v.bias, channels(2))
    full, part = torch.ones(2, 5, dtype=torch.bool), torch.tensor([[True] * 5, [False] * 5])
    x = draw(2, 5, 5)
    found = answers(model, (x, full), (x, part))
    assert heads(found) == after
    assert ("a mask may hide from a place all that it attends to" in str(found)) is bias


class Shared(nn.Module):
    """Two queries for each key, by a table of their places, and norms of each head's channels."""

    def __init__(self, times: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.groups, self.times = 3, times
        self.q, self.k = nn.Linear(5, 12 * times), nn.Linear(5, 12)
        self.v, self.out = nn.Linear(5, 12, bias=False), nn.Linear(12 * times, 3)
        self.table = nn.Embedding(9, 3 * times)
        self.scale = nn.Parameter(torch.randn(4))
        double(self)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q = self.q(x).view(n, t, self.groups * self.times, 4).transpose(1, 2)
        q = q / q.norm(dim=-1, keepdim=True) * self.scale
        k, v = (each(x).view(n, t, self.groups, 4).transpose(1, 2) for each in (self.k, self.v))
        places = torch.arange(t)
        bias = self.table((places[:, None] - places).clamp(-4, 4) + 4).permute(2, 0, 1)
        made = functional.scaled_dot_product_attention(
            q, k, v, bias.expand(n, -1, t, t), enable_gqa=True
        )
        return self.out(made.transpose(1, 2).reshape(n, t, -1))


@pytest.mark.parametrize("times", [1, 2])
def test_what_shares_keys_goes_together(times: int) -> None:
    model = Shared(times)
    silence(model.out.weight, channels(0), 1)
    silence(model.v.weight, channels(2))
    found = answers(model, draw(2, 5, 5), draw(3, 7, 5))
    sizes = left(found)
    groups = 1 if times == 1 else 2  # one of the two heads with the first key is heard
    assert (sizes["k"], sizes["q"], sizes["table"]) == (
        4 * groups,
        4 * groups * times,
        groups * times,
    )
    assert (found.model.groups, found.model.times) == (groups, times)


# --- other numbers of units in code ---------------------------------------------------------------


class Groups(nn.Module):
    """Units in groups, of which either whole ones or one of each may go."""

    def __init__(self, literal: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.groups, self.each, self.literal = 2, 4, literal
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)
        double(self)

    def forward(self, x: Tensor) -> Tensor:
        groups = 2 if self.literal else self.groups
        x = self.first(x).view(-1, groups, self.each).transpose(1, 2)
        return self.last(x.flatten(1))


@pytest.mark.parametrize(
    ("dead", "literal", "after", "reason"),
    [
        ([1, 6], False, 8, "2: its number may stand in the model's code"),
        ([1, 4, 5, 6, 7], False, 3, ""),
        ([4, 5, 6, 7], True, 8, "4: its number may stand in the model's code"),
        ([0, 1, 4, 5], True, 4, ""),
    ],
)
def test_units_in_groups(dead: list[int], literal: bool, after: int, reason: str) -> None:
    model = Groups(literal)
    silence(model.first.weight, dead)
    found = answers(model, draw(2, 4), draw(5, 4))
    assert left(found)["first"] == after
    assert reason in str(found)


class Layer(Attention):
    """With its number among the layers, which looks like that of its heads."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number, self.depth = number, 7
        self.out = nn.Linear(16, 5).double()


def test_the_number_of_a_layer_is_no_count() -> None:
    model = nn.Sequential(*(Layer(n) for n in (4, 3, 1))).eval()
    for layer in model[:2]:
        silence(layer.out.weight, channels(1), 1)
    found = answers(model, draw(2, 5, 5), draw(3, 7, 5)).model
    assert [(each.num_heads, each.head_dim, each.number) for each in found] == [
        *((3, 4, 4), (3, 4, 3), (4, 4, 1))
    ]
