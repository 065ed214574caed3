"""docs/halfspace.md: what its script measures it by, in a few steps. The page itself takes long."""

from __future__ import annotations

import halfspace
import torch
from documents import part_of, read
from halfspace_groups import (
    OF_GROUPS,
    RULES,
    groups_wrong,
    regression,
    rule,
    solved_groups,
    spread_of,
)
from halfspace_lasso import ELEMENTWISE, WAYS, drawn, share, trained
from halfspace_letters import SIDE, letters
from halfspace_networks import network


def test_the_page_has_a_place_for_each_part() -> None:
    page = read(halfspace.PAGE)
    for name in halfspace.parts(1, 1, 1):
        assert "| --- |" in part_of(page, name), name


def test_right_zeros_are_counted_against_scikit_learn() -> None:
    ways = {way: trained("diabetes", ELEMENTWISE["SGD"], WAYS[way], 250) for way in WAYS}
    assert all(not isinstance(found, str) for found in ways.values())
    right = {way: float(found.right.mean()) for way, found in ways.items()}  # type: ignore[union-attr]
    assert right["proximal"] < 0.2 < 0.7 < right["halfspace"]
    assert trained("diabetes", ELEMENTWISE["Lion"], WAYS["proximal"], 1) == "refused"
    assert share("refused", slice(5)) == "refused"


def test_a_batch_of_all_has_each_example_once() -> None:
    found = drawn(7, 64, torch.Generator())
    assert found.tolist() == [[*range(7)]] * 5


def test_the_three_rules_are_three() -> None:
    """A kernel has none of them but the mode's own: they are on the plain path."""
    problem = regression(6, 0.4)
    found = {}
    for name in RULES:
        with rule(name):
            found[name] = groups_wrong(problem, "Adam", 100, 0)
    assert len(set(found.values())) == 3
    assert found[RULES[2]][0] < found[RULES[0]][0]
    assert {"SGD", "SGD, momentum", "Adam", "Lion"} <= set(OF_GROUPS)
    assert solved_groups(problem)[2] > 1, "the noise is above the penalty"


def test_a_spread_is_shown_where_there_is_one() -> None:
    assert spread_of([1.0, 1.0]) == "1.0"
    assert spread_of([1.0, 2.0, 3.0]) == "2.0 (1.0–3.0)"


def test_letters_are_the_same_each_time_and_the_network_is_of_a_million_weights() -> None:
    once, again = letters(30, 5), letters(30, 5)
    assert once.x.shape == (30, SIDE * SIDE)
    assert once.x_test.shape == (5, SIDE * SIDE)
    assert all(map(torch.equal, once, again))
    assert sum(p.numel() for p in network().parameters() if p.ndim == 2) == 1_060_600
