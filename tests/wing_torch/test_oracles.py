"""Convex problems whose solutions other libraries know.

A one-layer model trained with ``mode="proximal"`` must arrive at the coefficients of scikit-learn's
Lasso, ElasticNet and Ridge on the diabetes data, exact zeros included, under every optimizer whose
step is known; the group lasso must satisfy its optimality conditions.

The units: scikit-learn minimises ‖y − Xw‖²/(2n) + α·r‖w‖₁ + α(1−r)/2·‖w‖², and Ridge
‖y − Xw‖² + α‖w‖². With half the mean squared error as the loss that is L1(α·r), L2(α(1−r)/2) and
L2(α/(2n)).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.optim as opt
from sklearn.datasets import load_diabetes
from sklearn.linear_model import ElasticNet, Lasso, Ridge
from torch import nn

from penalize import L1, L1L2, L2, GroupLasso, Regularizer
from penalize.torch import regularize

X, Y = load_diabetes(return_X_y=True)
X = (X - X.mean(0)) / X.std(0)
Y = (Y - Y.mean()) / Y.std()
N, FEATURES = X.shape
STEPS = 2500

OPTIMIZERS: dict[str, Callable[[Any], opt.Optimizer]] = {
    "SGD": lambda p: opt.SGD(p, lr=0.4),
    "momentum": lambda p: opt.SGD(p, lr=0.1, momentum=0.9),
    "Nesterov": lambda p: opt.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "dampening": lambda p: opt.SGD(p, lr=0.4, momentum=0.9, dampening=0.5),
    "Adam": lambda p: opt.Adam(p, lr=0.02),
    "amsgrad": lambda p: opt.Adam(p, lr=0.05, amsgrad=True),
    "AdamW": lambda p: opt.AdamW(p, lr=0.02, weight_decay=0.0),
    "NAdam": lambda p: opt.NAdam(p, lr=0.02),
    "RAdam": lambda p: opt.RAdam(p, lr=0.02),
    "Adamax": lambda p: opt.Adamax(p, lr=0.05),
    "Adagrad": lambda p: opt.Adagrad(p, lr=0.5, lr_decay=1e-6),
    "RMSprop": lambda p: opt.RMSprop(p, lr=0.005),
    "RMSprop, momentum": lambda p: opt.RMSprop(p, lr=0.001, momentum=0.8),
}
some_optimizers = pytest.mark.parametrize("name", ["SGD", "momentum", "Adam", "Adamax"])
each_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def fit(regularizer: Regularizer, name: str, mode: str = "proximal") -> np.ndarray:
    def prepare(model: nn.Module, optimizer: opt.Optimizer) -> None:
        regularize(model, regularizer).attach(optimizer, mode=mode)

    return train(name, prepare)


def train(name: str, prepare: Callable[[nn.Module, opt.Optimizer], object]) -> np.ndarray:
    """The coefficients after STEPS steps, or as soon as 100 have moved none."""
    model = nn.Linear(FEATURES, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    gram, correlation = torch.tensor(X.T @ X / N), torch.tensor(X.T @ Y / N)
    optimizer = OPTIMIZERS[name](model.parameters())
    prepare(model, optimizer)
    # An adaptive method needs a falling learning rate: where the gradient vanishes at the solution
    # its own steps grow without bound. Its fixed points do not depend on the learning rate.
    plain = isinstance(optimizer, opt.SGD)
    schedule = opt.lr_scheduler.ExponentialLR(optimizer, 1.0 if plain else 0.998)
    before = torch.full_like(model.weight, torch.nan)
    for i in range(STEPS):
        if i % 100 == 0:
            if (model.weight - before).abs().max() < 1e-13:
                break
            before = model.weight.detach().clone()
        # The gradient of ‖y − Xw‖²/(2n), in closed form to keep the test fast.
        model.weight.grad = (gram @ model.weight.detach()[0] - correlation)[None]
        optimizer.step()
        schedule.step()
    return model.weight.detach().numpy()[0]


@each_optimizer
def test_lasso(name: str) -> None:
    alpha = 0.05
    expected = Lasso(alpha=alpha, fit_intercept=False, tol=1e-14, max_iter=100_000).fit(X, Y).coef_
    assert 0 < (expected == 0).sum() < FEATURES
    found = fit(L1(alpha), name)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(found == 0, expected == 0)


@some_optimizers
def test_elastic_net(name: str) -> None:
    alpha, ratio = 0.1, 0.5
    model = ElasticNet(alpha=alpha, l1_ratio=ratio, fit_intercept=False, tol=1e-14, max_iter=10**5)
    expected = model.fit(X, Y).coef_
    assert 0 < (expected == 0).sum() < FEATURES
    l1, l2 = alpha * ratio, alpha * (1 - ratio) / 2
    for regularizer in (L1L2(l1, l2), L1(l1) + L2(l2)):
        found = fit(regularizer, name)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        np.testing.assert_array_equal(found == 0, expected == 0)


@some_optimizers
def test_ridge(name: str) -> None:
    alpha = 30.0
    expected = Ridge(alpha=alpha, fit_intercept=False).fit(X, Y).coef_
    np.testing.assert_allclose(fit(L2(alpha / (2 * N)), name), expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["gradient", "proximal"])
def test_both_modes_have_one_minimiser_where_the_penalty_is_smooth(mode: str) -> None:
    expected = Ridge(alpha=30.0, fit_intercept=False).fit(X, Y).coef_
    np.testing.assert_allclose(fit(L2(30.0 / (2 * N)), "momentum", mode), expected, atol=1e-5)


GROUPS = [[0, 1], [2, 3], [4, 5, 6, 7], [8, 9]]


def residual_tolerance(name: str) -> float:
    """RMSprop swings around the minimiser, as far as its falling learning rate lets it."""
    return 1e-6 if name.startswith("RMSprop") else 1e-8


def check_group_lasso(w: np.ndarray, strength: float, tolerance: float) -> None:
    """KKT: ∇f_g = −λ√|g| w_g/‖w_g‖ for a group that stays, ‖∇f_g‖ ≤ λ√|g| for one that is zero."""
    gradient = X.T @ (X @ w - Y) / N
    left = [bool(w[g].any()) for g in GROUPS]
    assert 0 < sum(left) < len(GROUPS)
    for g, stays in zip(GROUPS, left, strict=True):
        limit = strength * np.sqrt(len(g))
        if stays:
            direction = w[g] / np.linalg.norm(w[g])
            np.testing.assert_allclose(gradient[g], -limit * direction, atol=tolerance)
        else:
            assert (w[g] == 0).all()
            assert np.linalg.norm(gradient[g]) <= limit


@each_optimizer
def test_group_lasso_satisfies_its_optimality_conditions(name: str) -> None:
    w = fit(GroupLasso(0.1, groups=GROUPS), name)
    check_group_lasso(w, 0.1, residual_tolerance(name))


def test_one_step_for_all_elements_misses_the_group_lasso_under_adam() -> None:
    """The closed form with the learning rate, as it is written by hand."""
    regularizer = GroupLasso(0.1, groups=GROUPS)

    def shrink(optimizer: opt.Optimizer, args: Any, kwargs: Any) -> None:
        (group,) = optimizer.param_groups
        (weight,) = group["params"]
        with torch.no_grad():
            weight.copy_(regularizer.prox(weight, group["lr"]))

    w = train("Adam", lambda _, optimizer: optimizer.register_step_post_hook(shrink))
    with pytest.raises(AssertionError):
        check_group_lasso(w, 0.1, 0.01)


@pytest.mark.parametrize("name", ["SGD", "Adam", "Adagrad"])
def test_sparse_group_lasso_satisfies_its_optimality_conditions(name: str) -> None:
    a, b, tolerance = 0.03, 0.05, residual_tolerance(name)
    w = fit(L1(a) + GroupLasso(b, groups=GROUPS), name)
    gradient = X.T @ (X @ w - Y) / N
    assert 0 < (w == 0).sum() < FEATURES
    for g in GROUPS:
        soft = np.sign(gradient[g]) * np.maximum(np.abs(gradient[g]) - a, 0)
        limit = b * np.sqrt(len(g))
        if not w[g].any():
            assert np.linalg.norm(soft) <= limit
            continue
        rest = gradient[g] + limit * w[g] / np.linalg.norm(w[g])
        np.testing.assert_allclose(rest[w[g] != 0], -a * np.sign(w[g][w[g] != 0]), atol=tolerance)
        assert (np.abs(rest[w[g] == 0]) <= a + 1e-12).all()
