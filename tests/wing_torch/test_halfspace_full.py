"""``mode="halfspace"`` on full batches: the coefficients and zeros of scikit-learn, to 1e-5."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.optim as opt
from optimizers.written_out import SOAP, Lion
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Lasso
from torch import nn
from torch.optim import SGD, Adam, Optimizer

from penalize import L1
from penalize.torch import regularize

STRENGTH = 0.1


def scaled(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(0)) / x.std(0)


def lasso(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The coefficients of scikit-learn."""
    model = Lasso(alpha=STRENGTH, fit_intercept=False, tol=1e-14, max_iter=10**5)
    return model.fit(x, y).coef_


def diabetes() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_diabetes(return_X_y=True)
    return scaled(x), scaled(y)


def twins() -> tuple[np.ndarray, np.ndarray]:
    """Three pairs of features that correlate by 0.95; only the first of each is in the target."""
    random = np.random.default_rng(0)
    common, own = random.normal(size=(400, 3)), random.normal(size=(2, 400, 3))
    first, second = (0.95**0.5 * common + 0.05**0.5 * each for each in own)
    y = first @ [1.0, -0.7, 0.5] + 0.05 * random.normal(size=400)
    return scaled(np.concatenate([first, second], 1)), scaled(y)


FULL: dict[str, Callable[[Any], Optimizer]] = {
    "SGD": lambda p: SGD(p, 0.4),
    "momentum": lambda p: SGD(p, 0.1, momentum=0.9),
    "Nesterov": lambda p: SGD(p, 0.1, momentum=0.9, nesterov=True),
    "Adam": lambda p: Adam(p, 0.02),
    "amsgrad": lambda p: Adam(p, 0.05, amsgrad=True),
    "AdamW": lambda p: opt.AdamW(p, 0.02, weight_decay=0.0),
    "NAdam": lambda p: opt.NAdam(p, 0.02),
    "RAdam": lambda p: opt.RAdam(p, 0.02),
    "Adamax": lambda p: opt.Adamax(p, 0.05),
    "Adagrad": lambda p: opt.Adagrad(p, 0.5),
    "Adadelta": lambda p: opt.Adadelta(p, 5.0),
    "RMSprop": lambda p: opt.RMSprop(p, 0.01),
    "ASGD": lambda p: opt.ASGD(p, 0.4, lambd=0.0),
    "Rprop": lambda p: opt.Rprop(p, 0.01),
    "Adafactor": lambda p: opt.Adafactor(p, 0.2),
    "Muon": lambda p: opt.Muon(p, 0.05, weight_decay=0.0),
    "Lion": lambda p: Lion(p, 0.01),
    "SOAP": lambda p: SOAP(p, 0.02),
}
SOME = ("momentum", "Rprop", "Adafactor", "Muon", "Lion")


def arrives(name: str, x: np.ndarray, y: np.ndarray, steps: int = 800) -> np.ndarray:
    """Where an optimizer arrives, compared with scikit-learn."""
    expected = lasso(x, y)
    w = nn.Parameter(torch.zeros(1, x.shape[1], dtype=torch.float64))
    optimizer = FULL[name]([w])
    regularize(nn.ParameterList([w]), {"0": L1(STRENGTH)}).attach(optimizer, mode="halfspace")
    gram, correlation = torch.tensor(x.T @ x / len(x)), torch.tensor(x.T @ y / len(x))
    rate = optimizer.param_groups[0]["lr"]
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * 1e-7 ** max(2 * step / steps - 1, 0)
        w.grad = w.detach() @ gram - correlation
        optimizer.step()
    found = w.detach().numpy()[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(found == 0, expected == 0)
    return found


SOME = ("momentum", "Rprop", "Adafactor", "Muon", "Lion", "SOAP")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.breadth] * (n not in SOME)) for n in FULL]
)
def test_full_batches_arrive_at_the_lasso(name: str) -> None:
    """Also under those that look at more than one element, or at none but their signs."""
    arrives(name, *diabetes())


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.breadth] * (n not in ("Muon", "SOAP"))) for n in FULL],
)
def test_twins_that_correlate_by_095(name: str) -> None:
    """Those that turn gradients step along both, and the twin that is not needed stays 0."""
    x, y = twins()
    correlations = np.corrcoef(x.T)
    np.testing.assert_allclose([correlations[i, i + 3] for i in range(3)], 0.95, atol=0.01)
    found = arrives(name, x, y, steps=2000)
    assert (found[:3] != 0).all()
    assert (found[3:] == 0).all()
