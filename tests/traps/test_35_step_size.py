"""Trap 35: the proximal step under momentum and Adam. test_oracles.py has every optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Lasso
from torch import nn

from penalize import L1, ModeError
from penalize.torch import regularize

ALPHA, LR = 0.05, 0.02
X, Y = load_diabetes(return_X_y=True)
X, Y = (X - X.mean(0)) / X.std(0), (Y - Y.mean()) / Y.std()
EXACT = Lasso(alpha=ALPHA, fit_intercept=False, tol=1e-14, max_iter=10**5).fit(X, Y).coef_


def distance(make: Callable[[Any], torch.optim.Optimizer], naive: bool) -> float:
    """How far from the lasso's solution the optimizer ends up."""
    model = nn.Linear(X.shape[1], 1, bias=False).double()
    gram, correlation = torch.tensor(X.T @ X / len(X)), torch.tensor(X.T @ Y / len(X))
    optimizer = make(model.parameters())
    if not naive:
        regularize(model, L1(ALPHA)).attach(optimizer, mode="proximal")
    for _ in range(3000):
        model.weight.grad = (gram @ model.weight.detach()[0] - correlation)[None]
        optimizer.step()
        if naive:
            w = model.weight.data
            model.weight.data = w - w.clamp(-LR * ALPHA, LR * ALPHA)
    return float(np.abs(model.weight.detach().numpy()[0] - EXACT).max())


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=LR, momentum=0.9),
        lambda p: torch.optim.Adam(p, lr=LR),
    ],
    ids=["momentum", "Adam"],
)
def test_right_threshold(make: Any) -> None:
    assert distance(make, naive=True) > 0.01
    assert distance(make, naive=False) < 1e-6


def test_or_refused() -> None:
    class Mine(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            return super().step(closure)

    model = nn.Linear(3, 1)
    for optimizer, why in (
        (torch.optim.Adadelta(model.parameters()), "is not known"),
        (torch.optim.RMSprop(model.parameters(), centered=True), "stays bounded"),
        (Mine(model.parameters()), "is not known"),  # it may do anything around the step of SGD
    ):
        with pytest.raises(ModeError, match=why):
            regularize(model, L1(0.1)).attach(optimizer, mode="proximal")
