"""Convex problems whose solutions other libraries know, trained through optax.

A linear model trained with ``plan.proximal(lr)`` must arrive at scikit-learn's coefficients, exact
zeros included, under every optimizer whose step is known; a group lasso must satisfy its optimality
conditions. The units are those of ``tests/wing_torch/test_oracles.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_diabetes
from sklearn.linear_model import ElasticNet, Lasso, Ridge

from penalize import L1, L1L2, L2, GroupLasso, Regularizer
from penalize.jax import Plan, regularize

X, Y = load_diabetes(return_X_y=True)
X = (X - X.mean(0)) / X.std(0)
Y = (Y - Y.mean()) / Y.std()
N, FEATURES = X.shape
STEPS = 2500
START = {"w": jnp.zeros((FEATURES, 1))}

Make = Callable[[Any], optax.GradientTransformation]
OPTIMIZERS: dict[str, tuple[float, Make]] = {
    "sgd": (0.4, optax.sgd),
    "momentum": (0.1, lambda lr: optax.sgd(lr, momentum=0.9)),
    "nesterov": (0.1, lambda lr: optax.sgd(lr, momentum=0.9, nesterov=True)),
    "adam": (0.02, optax.adam),
    "eps_root": (0.02, lambda lr: optax.adam(lr, eps_root=1e-6)),
    "adamw": (0.02, lambda lr: optax.adamw(lr, weight_decay=0.0)),
    "nadam": (0.02, optax.nadam),
    "amsgrad": (0.05, optax.amsgrad),
    "adamax": (0.05, optax.adamax),
    "adagrad": (0.5, optax.adagrad),
    "rmsprop": (0.01, optax.rmsprop),
    "rmsprop, corrected": (
        0.01,
        lambda lr: optax.rmsprop(lr, bias_correction=True, eps_in_sqrt=False),
    ),
    "rmsprop, momentum": (
        0.001,
        lambda lr: optax.chain(
            optax.scale_by_rms(), optax.trace(0.8), optax.scale_by_learning_rate(lr)
        ),
    ),
    "clipped": (0.4, lambda lr: optax.chain(optax.clip_by_global_norm(10.0), optax.sgd(lr))),
    "injected": (0.02, lambda lr: optax.inject_hyperparams(optax.adam)(learning_rate=lr)),
}
PLAIN = ("sgd", "momentum", "nesterov", "clipped")
each_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)
some_optimizers = pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "adamax"])


def fit(
    regularizer: Regularizer,
    name: str,
    ours: Callable[[Plan, Any], Any] = lambda plan, rate: plan.proximal(rate),
) -> np.ndarray:
    lr, make = OPTIMIZERS[name]
    # An adaptive method needs a falling learning rate: where the gradient vanishes at the solution
    # its own steps grow without bound. Its fixed points do not depend on the learning rate.
    falling = 1.0 if name in PLAIN else 0.998

    def rate(count: Any) -> Any:
        return lr * falling**count

    plan = regularize(START, regularizer)
    tx = optax.chain(make(rate), ours(plan, rate))
    gram, correlation = jnp.asarray(X.T @ X / N), jnp.asarray(X.T @ Y / N)[:, None]

    def step(_: Any, carry: Any) -> Any:
        params, state = carry
        # The gradient of ‖y − Xw‖²/(2n), in closed form.
        updates, state = tx.update({"w": gram @ params["w"] - correlation}, state, params)
        return optax.apply_updates(params, updates), state

    @jax.jit
    def run(params: Any) -> Any:
        return jax.lax.fori_loop(0, STEPS, step, (params, tx.init(params)))[0]

    return np.asarray(run(START)["w"])[:, 0]


@each_optimizer
def test_lasso(name: str) -> None:
    alpha = 0.05
    expected = Lasso(alpha=alpha, fit_intercept=False, tol=1e-14, max_iter=100_000).fit(X, Y).coef_
    assert 0 < (expected == 0).sum() < FEATURES
    found = fit(L1(alpha), name)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(found == 0, expected == 0)


def test_the_learning_rate_for_a_step_misses_it_under_adam() -> None:
    """The soft threshold of lr·λ behind Adam, as it is written by hand."""
    alpha = 0.05
    expected = Lasso(alpha=alpha, fit_intercept=False, tol=1e-14, max_iter=100_000).fit(X, Y).coef_

    def naive(plan: Plan, rate: Any) -> Any:
        def update(updates: Any, count: Any, params: Any) -> Any:
            new = plan.prox(optax.apply_updates(params, updates), rate(count))
            return jax.tree.map(jnp.subtract, new, params), count + 1

        return optax.GradientTransformation(lambda _: jnp.zeros((), int), update)

    assert np.abs(fit(L1(alpha), "adam", naive) - expected).max() > 0.1


@some_optimizers
def test_elastic_net(name: str) -> None:
    alpha, ratio = 0.1, 0.5
    model = ElasticNet(alpha=alpha, l1_ratio=ratio, fit_intercept=False, tol=1e-14, max_iter=10**5)
    expected = model.fit(X, Y).coef_
    found = fit(L1L2(alpha * ratio, alpha * (1 - ratio) / 2), name)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(found == 0, expected == 0)


@some_optimizers
def test_ridge(name: str) -> None:
    expected = Ridge(alpha=30.0, fit_intercept=False).fit(X, Y).coef_
    np.testing.assert_allclose(fit(L2(30.0 / (2 * N)), name), expected, atol=1e-5)


GROUPS = [[0, 1], [2, 3], [4, 5, 6, 7], [8, 9]]


@some_optimizers
def test_group_lasso_satisfies_its_optimality_conditions(name: str) -> None:
    """KKT: ∇f_g = −λ√|g| w_g/‖w_g‖ for a group that stays, ‖∇f_g‖ ≤ λ√|g| for one that is zero."""
    strength = 0.1
    w = fit(GroupLasso(strength, groups=GROUPS), name)
    gradient = X.T @ (X @ w - Y) / N
    left = [bool(w[g].any()) for g in GROUPS]
    assert 0 < sum(left) < len(GROUPS)
    for g, stays in zip(GROUPS, left, strict=True):
        limit = strength * np.sqrt(len(g))
        if stays:
            direction = w[g] / np.linalg.norm(w[g])
            np.testing.assert_allclose(gradient[g], -limit * direction, atol=1e-6)
        else:
            assert (w[g] == 0).all()
            assert np.linalg.norm(gradient[g]) <= limit
