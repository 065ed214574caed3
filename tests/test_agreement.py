"""One rules table means the same on every framework: penalty, gradient, and ten steps of SGD.

``agreement/`` holds the model and one program per framework; the table of docs/agreement.md is
written from what they measure.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from agreement import pytorch
from agreement.problem import SHAPES, START, STEPS, Run, by_hand
from agreement.report import apart, bound, section
from agreement.routes import REFERENCE, ROUTES, Route, runs
from agreement.rules import RULES
from documents import DOCS, part_of, read

from penalize import L2, GroupLasso, kernels

TOLERANCE = 1e-6

every_route = pytest.mark.parametrize(
    "route", ROUTES, ids=lambda route: f"{route.framework}, {route.program}"
)


@every_route
def test_a_framework_agrees(route: Route) -> None:
    run, reference = runs()[route], runs()[REFERENCE]
    assert len(run.steps) == STEPS == 10
    assert run.penalty == pytest.approx(by_hand(START), rel=TOLERANCE)
    for name in SHAPES:
        for found, expected in (
            (run.gradients, reference.gradients),
            *zip(run.steps, reference.steps, strict=True),
        ):
            np.testing.assert_allclose(
                found[name], expected[name], rtol=TOLERANCE, atol=TOLERANCE, err_msg=name
            )


@every_route
def test_the_plans_read_alike(route: Route) -> None:
    assert runs()[route].plan == {
        "encoder.tokens.embeddings": "L2(0.005) + GroupLasso(0.01, groups='inputs')",
        "encoder.conv.kernel": "GroupLasso(0.02)",
        "encoder.conv.bias": "None",
        "norm.gamma": "L2(0.001)",
        "norm.beta": "L2(0.001)",
        "hidden.kernel": "L1(0.003) + GroupLasso(0.005, groups='inputs')",
        "hidden.bias": "L2(0.02)",
        "head.kernel": "L2(0.01)",
        "head.bias": "L1L2(l1=0.01, l2=0.03)",
    }


OTHER_RULES = {
    "another strength": {kernels: L2(0.0101)},
    "groups along the other axis": {"encoder.conv": GroupLasso(0.02, groups="inputs")},
    "one exemption more": {"head": None},
    "one exemption less": {"encoder.conv.bias": L2(0.001)},
}


@pytest.mark.parametrize("difference", OTHER_RULES)
def test_a_difference_would_be_seen(difference: str) -> None:
    _is_seen(pytorch.loss_term({**RULES, **OTHER_RULES[difference]}))


def test_a_wrong_layout_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The axes of TensorFlow's kernels, taken for PyTorch's."""
    monkeypatch.setattr(
        "penalize.torch.model.parameters.axes_of", lambda owner, ndim: (ndim - 1, 0)
    )
    _is_seen(pytorch.loss_term(RULES))


def test_a_penalty_that_is_not_applied_would_be_seen() -> None:
    net = pytorch.make()
    _is_seen(pytorch.train(net, lambda: 0.0 * net.head.weight.sum()))


def _is_seen(run: Run) -> None:
    found = apart(run, pytorch.written_by_hand(RULES))
    assert all(difference > 10 * TOLERANCE for difference in found), found


def test_the_page_shows_what_was_measured() -> None:
    """`make readme` writes it. A machine may round better than the one that wrote it, not worse."""
    text = part_of(read(DOCS / "agreement.md"), "agreement")
    told, measured = text.splitlines(), section(runs()).splitlines()
    assert len(told) == len(measured)
    for told_line, line in zip(told, measured, strict=True):
        (*told_cells, told_gradient, told_steps) = ["", "", *told_line.split(" | ")]
        (*cells, gradient, steps) = ["", "", *line.split(" | ")]
        assert told_cells == cells
        if "<" in told_gradient:
            assert _number(gradient) <= _number(told_gradient) <= TOLERANCE
            assert _number(steps) <= _number(told_steps) <= TOLERANCE
        else:
            assert (told_gradient, told_steps) == (gradient, steps)


def _number(cell: str) -> float:
    return float(cell.strip(" <|"))


def test_bounds() -> None:
    assert [bound(d) for d in (0.0, 3e-16, 9.9e-13)] == [1e-12] * 3
    assert bound(2e-12) == pytest.approx(1e-11)
    assert bound(0.3) == pytest.approx(1.0)
    assert math.isnan(bound(math.nan))
