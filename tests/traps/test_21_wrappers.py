"""Trap 21: names under wrappers."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from penalize import L1, L2, kernels
from penalize.torch import regularize


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "compile": lambda m: torch.compile(m),
    "DataParallel": nn.DataParallel,
    "AveragedModel": AveragedModel,
    "compile inside": lambda m: nn.Sequential(*(torch.compile(c) for c in m)),
    "both": lambda m: nn.DataParallel(torch.compile(m)),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_same_plan_before_and_after_wrapping(wrap: Callable[[nn.Module], nn.Module]) -> None:
    model = network()
    rules = {kernels: L2(1e-4), "0": L1(1e-4)}
    before = regularize(model, rules)
    wrapped = wrap(model)
    naive = [name for name, _ in wrapped.named_parameters() if re.match(r"0\.weight$", name)]
    assert naive == []
    after = regularize(wrapped, rules)
    assert [row.name for row in after.rows] == [row.name for row in before.rows]
    assert [row.regularizer for row in after.rows] == [row.regularizer for row in before.rows]
    torch.testing.assert_close(after.penalty(), before.penalty())
