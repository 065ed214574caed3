"""How a plan reads, without any framework."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from penalize import L1, L2, Role
from penalize.parameters import Parameter, Site
from penalize.plan import LivePlan, PenalizedNow, Row, describe, row_of
from penalize.rules import Decision

ROWS = (
    Row("a.weight", ("b.weight",), Role.KERNEL, (3, 4), L2(0.5), "rule kernels", ""),
    Row("a.bias", (), Role.BIAS, (3,), None, "", "skipped: frozen"),
    Row("scale", (), Role.OTHER, (), L1(0.1), "declare (t.py:9)", ""),
    Row("late", (), Role.KERNEL, None, None, "", ""),
)

TABLE = """\
parameter            role    shape   regularizer  penalty now  declared at       note
-------------------  ------  ------  -----------  -----------  ----------------  ---------------
a.weight = b.weight  kernel  3×4     L2(0.5)      1.235        rule kernels
a.bias               bias    3                                                   skipped: frozen
scale                other   scalar  L1(0.1)                   declare (t.py:9)
late                 kernel  lazy
2 of 4 parameters penalized, penalty 1.235"""


def test_the_table() -> None:
    assert describe(ROWS, {"a.weight": 1.23456}) == TABLE


def test_the_table_says_which_roles_are_not_there() -> None:
    parameter = Parameter((Site("w"),), Role.KERNEL, (2,))
    decision = Decision(L2(0.1), "rule (t.py:1)", idle=("biases", "norms"))
    rows = [row_of(parameter, decision, (2,), True)] * 2
    text = describe(rows, {})
    assert text.endswith("2 of 2 parameters penalized\nbiases, norms: no parameter has such a role")
    assert rows[0] == row_of(parameter, Decision(L2(0.1), "rule (t.py:1)"), (2,), True)


def test_columns_without_content_are_left_out() -> None:
    text = describe(ROWS[3:], {})
    assert "note" not in text
    assert "penalty" not in text
    assert text.endswith("0 of 1 parameters penalized")


def test_a_plan_prints_its_rows() -> None:
    class Fixed(LivePlan):
        rows = ROWS

        def penalized_now(self, params: Any = None, *, at: Any = None) -> list[PenalizedNow]:
            return [PenalizedNow("a.weight", np.float64(1.23456), L1(1.0), 1.23456)]

    assert str(Fixed()) == TABLE
    assert repr(Fixed()) == "<Fixed: 2 of 4 parameters penalized>"


PARAMETER = Parameter((Site("w"),), Role.KERNEL, (3, 4), note="effective weight")


@pytest.mark.parametrize(
    ("decision", "trainable", "regularizer", "note"),
    [
        (Decision(L1(1.0), "here"), True, L1(1.0), "effective weight"),
        (
            Decision(L1(1.0), "here"),
            False,
            None,
            "effective weight; skipped: frozen (L1(1.0) when trainable)",
        ),
        (Decision(), False, None, "effective weight; skipped: frozen"),
        (
            Decision(None, "here", ("L1(1.0) by there",)),
            True,
            None,
            "effective weight; overrides L1(1.0) by there",
        ),
        (
            Decision(passed_over="rule 'w'"),
            True,
            None,
            "effective weight; rule 'w' acts on kernels only",
        ),
    ],
)
def test_what_a_row_says(
    decision: Decision, trainable: bool, regularizer: L1 | None, note: str
) -> None:
    row = row_of(PARAMETER, decision, (3, 4), trainable)
    assert (row.regularizer, row.note) == (regularizer, note)


def test_sizes_of_a_record() -> None:
    assert (PARAMETER.size, PARAMETER.ndim) == (12, 2)
    lazy = Parameter((Site("w"), Site("v")), Role.KERNEL, None)
    assert (lazy.size, lazy.ndim, lazy.aliases) == (0, 0, ("v",))
