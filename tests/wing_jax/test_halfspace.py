"""``plan.halfspace(optimizer)``: the rule around any transform of optax, and what it refuses."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from halfspace_reference import HalfSpace
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Lasso

from penalize import (
    L1,
    L2,
    AppliedTwiceError,
    GroupLasso,
    ModeError,
    NoKinkError,
    NuclearNorm,
    OptimizerError,
)
from penalize.jax import regularize

_rng = np.random.default_rng(0)
START = {"kernel": jnp.asarray(_rng.normal(size=(4, 3)))}
NOISE = 0.4 * _rng.normal(size=(60, 4, 3))
ROWS = [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
PENALTY = L1(0.1) + GroupLasso(0.2, groups=0) + L2(0.05)


def written(average: float) -> HalfSpace:
    start = np.asarray(START["kernel"]).reshape(-1)
    sizes = [0.2 * 3**0.5] * 4
    return HalfSpace(
        start, average, element=0.1, groups=ROWS, sizes=sizes, smooth=lambda w: 0.1 * w
    )


def run(tx: Any, params: Any = START, noise: Any = NOISE) -> Any:
    """The weights after each step on ½‖w − 0.3·w₀‖² with noise in its gradient."""

    def step(carry: Any, epsilon: Any) -> Any:
        params, state = carry
        slopes = params["kernel"] - 0.3 * START["kernel"] + epsilon
        slopes = {"kernel": slopes.astype(params["kernel"].dtype)}
        updates, state = tx.update(slopes, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params["kernel"]

    return jax.lax.scan(step, (params, tx.init(params)), jnp.asarray(noise))[1]


@pytest.mark.parametrize("clipped", [False, True])
def test_against_a_plain_loop_in_numpy(clipped: bool) -> None:
    """With momentum; clipped before it, as in a chain."""
    plan = regularize(START, PENALTY)
    tx = plan.halfspace(optax.sgd(0.1, momentum=0.9), average=0.9)
    tx = optax.chain(optax.clip(0.5), tx) if clipped else tx
    rule, w = written(0.9), np.asarray(START["kernel"]).reshape(-1)
    speed, expected = 0 * w, []
    for epsilon in NOISE:
        g = w - 0.3 * np.asarray(START["kernel"]).reshape(-1) + epsilon.reshape(-1)
        speed = 0.9 * speed + rule.before(w, np.clip(g, -0.5, 0.5) if clipped else g)
        w = rule.after(w, w - 0.1 * speed)
        expected.append(w.reshape(4, 3))
    found = np.asarray(run(tx))
    np.testing.assert_allclose(found, expected, atol=1e-9)
    np.testing.assert_array_equal(found == 0, np.array(expected) == 0)
    assert 0 < (found == 0).sum() < found.size


def test_the_right_zeros_on_mini_batches() -> None:
    """With an optimizer whose step is not known; and the gradient alone never has one."""
    x, y = load_diabetes(return_X_y=True)
    x, y = (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std()
    lasso = Lasso(alpha=0.1, fit_intercept=False, tol=1e-14).fit(x, y).coef_
    x, y = jnp.asarray(x), jnp.asarray(y)
    params, steps = {"kernel": jnp.zeros((10, 1))}, 2000
    plan = regularize(params, L1(0.1))
    batches = jax.random.randint(jax.random.key(0), (steps, 64), 0, len(x))

    def rate(count: Any) -> Any:
        return 0.003 * (1 - count / steps)

    def last(tx: Any) -> Any:
        def step(carry: Any, i: Any) -> Any:
            params, state = carry
            slopes = jax.grad(lambda p: ((x[i] @ p["kernel"][:, 0] - y[i]) ** 2).mean() / 2)(params)
            updates, state = tx.update(slopes, state, params)
            return (optax.apply_updates(params, updates), state), params["kernel"][:, 0]

        return np.asarray(jax.lax.scan(step, (params, tx.init(params)), batches)[1][-200:])

    lion = optax.lion(rate, weight_decay=0.0)
    found = last(plan.halfspace(lion))
    assert ((found == 0) == (lasso == 0)).all(1).mean() > 0.95
    np.testing.assert_allclose(found[-1], lasso, atol=0.03)
    assert not (last(optax.chain(plan.gradient(), lion)) == 0).any()


def test_strengths_that_follow_a_schedule() -> None:
    """While it is 0, nothing is done at all."""
    plain = run(optax.adam(0.05), noise=NOISE[:10])
    plan = regularize(START, PENALTY)
    late = plan.halfspace(
        optax.adam(0.05), average=0.9, strength=lambda t: jnp.where(t < 10, 0, 1.0)
    )
    found = run(late)
    np.testing.assert_allclose(found[:10], plain, rtol=1e-12)
    assert (found[-1] == 0).any()
    scheduled = regularize(START, PENALTY * (lambda t: jnp.where(t < 10, 0.0, 1.0)))
    tx = scheduled.halfspace(optax.adam(0.05), average=0.9)
    np.testing.assert_allclose(run(tx), found, rtol=1e-9)


def test_weights_in_half_precision_reach_zero() -> None:
    params = {"kernel": START["kernel"].astype(jnp.bfloat16)}
    tx = regularize(params, L1(0.5)).halfspace(optax.sgd(0.1), average=0.9)
    assert tx.init(params).memories["kernel"].mean.dtype == jnp.float32
    found = run(tx, params)
    assert found.dtype == jnp.bfloat16
    assert (found[-1] == 0).any()


def test_what_it_refuses() -> None:
    plan = regularize(START, L1(0.1))
    with pytest.raises(ModeError, match=r"average=1\.0; expected a number from 0 to below 1"):
        plan.halfspace(optax.sgd(0.1), average=1.0)
    with pytest.raises(NoKinkError, match="it has no kink at 0"):
        regularize(START, L2(0.1)).halfspace(optax.sgd(0.1))
    with pytest.raises(NoKinkError, match=r"on 'kernel'\) has no half-space step: what becomes 0"):
        regularize(START, NuclearNorm(0.1)).halfspace(optax.sgd(0.1))
    with pytest.raises(OptimizerError, match=r"got a float; write plan\.halfspace"):
        plan.halfspace(0.1)
    inside = (
        (
            optax.contrib.schedule_free(optax.sgd(0.1), 0.1),
            "schedule_free within, which keeps weig",
        ),
        (optax.apply_every(2), "apply_every within, which would add the penalty up once per batch"),
        (optax.lbfgs(), "within, which goes by the value of the loss"),
    )
    for optimizer, sentence in inside:
        with pytest.raises(OptimizerError, match=sentence):
            plan.halfspace(optimizer)


def test_where_it_may_stand() -> None:
    plan = regularize(START, L1(0.1) + L2(0.1))
    slopes = {"kernel": jnp.ones((4, 3))}
    tx = plan.halfspace(optax.sgd(0.1))
    with pytest.raises(OptimizerError, match="was updated without parameters; pass them"):
        tx.update(slopes, tx.init(START))
    for chain, error, sentence in (
        (
            optax.chain(optax.scale(2.0), tx),
            OptimizerError,
            "stands after scale, and would not see",
        ),
        (
            optax.chain(tx, optax.scale(2.0)),
            OptimizerError,
            "stands before scale, which would chan",
        ),
        (optax.chain(plan.gradient(), tx), AppliedTwiceError, "would be applied twice"),
        (plan.halfspace(optax.adamw(0.1)), AppliedTwiceError, "the weight_decay of"),
        (plan.halfspace(tx), AppliedTwiceError, r"by plan.halfspace\(...\)"),
    ):
        with pytest.raises(error, match=sentence):
            chain.update(slopes, chain.init(START), START)


def test_plans_of_other_weights_may_stand_within() -> None:
    params = {"kernel": START["kernel"], "other": -START["kernel"]}
    first, second = (regularize(params, {name: L1(0.3)}) for name in params)
    both = regularize(params, {"*": L1(0.3)}).halfspace(optax.sgd(0.5), average=0.9)
    nested = first.halfspace(second.halfspace(optax.sgd(0.5), average=0.9), average=0.9)
    found = []
    for tx in (both, nested):
        w, state, update = params, tx.init(params), jax.jit(tx.update)
        for _ in range(4):
            updates, state = update(jax.tree.map(lambda x: 0.1 * x, w), state, w)
            w = optax.apply_updates(w, updates)
        found.append(w)
    for name, w in found[0].items():
        assert 0 < (w == 0).sum() < w.size
        np.testing.assert_allclose(found[1][name], w, atol=1e-12)
