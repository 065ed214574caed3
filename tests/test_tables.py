"""Text tables: one layout for the plan, the audit, the balance, the paths and the activities."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pytest
import torch

from penalize import kernels
from penalize.parameters import Role
from penalize.plan import Row, describe
from penalize.tables import Listing, laid_out, number, table, with_aliases
from penalize.torch import regularize


class Fruit(NamedTuple):
    name: str
    weight: float
    note: str = ""


COLUMNS: dict[str, Callable[[Fruit], str]] = {
    "fruit": lambda fruit: fruit.name,
    "weight": lambda fruit: number(fruit.weight, 3),
    "note": lambda fruit: fruit.note,
}
FRUITS = [Fruit("fig", 1 / 3), Fruit("apple", math.nan)]
TEXT = """\
fruit  weight
-----  ------
fig    0.333
apple"""


def test_columns_are_aligned_and_empty_ones_left_out() -> None:
    assert laid_out(COLUMNS, FRUITS) == TEXT
    assert laid_out(COLUMNS, iter(FRUITS)) == TEXT
    with_note = laid_out(COLUMNS, [*FRUITS, Fruit("date", 2.0, "dry")])
    assert with_note.splitlines()[-1] == "date   2       dry"
    assert table(["a", "b"], [["", "1"]]) == "b\n-\n1"


def test_a_table_without_rows_is_empty() -> None:
    """Two empty lines would stand above whatever is printed below it."""
    assert table(["a", "b"], []) == laid_out(COLUMNS, []) == ""
    assert describe([], {}) == "0 of 0 parameters penalized"


@pytest.mark.parametrize(
    ("value", "text"),
    [(1 / 3, "0.3333"), (0.0, "0"), (1e-12, "1e-12"), (math.inf, "inf"), (math.nan, "")],
)
def test_a_number(value: float, text: str) -> None:
    assert number(value) == text


def test_a_penalty_that_is_nan_is_seen_in_the_plan() -> None:
    row = Row("w", ("v",), Role.KERNEL, (2, 3), None, "", "")
    assert describe([row], {"w": math.nan}).splitlines() == [
        "parameter  role    shape  penalty now",
        "---------  ------  -----  -----------",
        "w = v      kernel  2×3    nan",
        "0 of 1 parameters penalized, penalty nan",
    ]


def test_names() -> None:
    assert with_aliases("a", ()) == "a"
    assert with_aliases("a", ("b", "c")) == "a = b = c"


class Basket(Listing[Fruit]):
    columns = COLUMNS
    empty = "nothing in it"

    def remarks(self) -> Iterable[str]:
        return ["", f"{len(self)} fruits"]


def test_a_listing_has_rows_and_prints_as_a_table() -> None:
    basket: Any = Basket(iter(FRUITS))
    assert list(basket) == FRUITS
    assert (basket[1], len(basket)) == (FRUITS[1], 2)
    assert str(basket) == repr(basket) == f"{TEXT}\n2 fruits"
    assert str(Basket([])) == "nothing in it"


def test_a_balance_of_nothing() -> None:
    plan = regularize(torch.nn.Linear(2, 2), {kernels: None})
    assert str(plan.balance()) == "no parameter is penalized"
