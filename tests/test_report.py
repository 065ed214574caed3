"""What an audit found, in words."""

from __future__ import annotations

import math

import pytest

from penalize import AuditError
from penalize.report import Measured, Report


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [
        (1.0, "applied once"),
        (1.0 + 1e-9, "applied once"),
        (0.0, "never applied"),
        (0.01, "strength multiplied again, by 0.01"),
        (1.5, "strength multiplied again, by 1.5"),
        (2.0, "applied 2 times"),
        (-1.0, "subtracted: the penalty is rewarded"),
        (math.inf, "strength multiplied again, by inf"),
        (math.nan, ""),
    ],
)
def test_a_factor_in_words(factor: float, verdict: str) -> None:
    row = Measured("w", factor)
    assert row.verdict == verdict
    assert row.ok == (verdict == "applied once")
    assert row.is_missing == (factor == 0)
    assert Measured("w", factor, "why").verdict.endswith("why")
    assert not Measured("w", factor, "why").ok


def test_the_tolerance() -> None:
    assert not Measured("w", 1.001).ok
    assert Measured("w", 1.001, tolerance=1e-2).ok
    assert Measured("w", 2.001, tolerance=1e-2).verdict == "applied 2 times"


def test_a_report() -> None:
    rows = [Measured("a", 1.0), Measured("b", 0.0), Measured("c", math.nan, "why")]
    report = Report(rows)
    assert list(report) == rows
    assert report[1] is rows[1]
    assert len(report) == 3
    assert [row.name for row in report.wrong] == ["b", "c"]
    assert str(report).splitlines() == [
        "penalty  factor  verdict",
        "-------  ------  -------------",
        "b        0       never applied",
        "c                why",
        "a        1       applied once",
        "1 of 3 applied exactly once",
    ]
    with pytest.raises(AuditError, match=r"not applied exactly once:\npenalty"):
        report.check()
    Report(rows[:1]).check()
    assert str(Report([])) == "no penalty is declared"
