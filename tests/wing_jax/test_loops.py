"""Training loops as each library writes them: equal to loops by hand, and refused where doubled."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from halfspace_reference import HalfSpace
from wing_jax.loops import LOOPS, LR, Adam, Weights, Wrap, slopes

from penalize import L1, L2, AppliedTwiceError
from penalize.jax import Plan, regularize
from penalize.schedules import warmup

L1S, L2S, STEPS, RISE = 0.05, 0.02, 10, 8
RULES = L1(L1S) * warmup(RISE) + L2(L2S)
LOSS: Wrap = lambda plan: optax.adam(LR)  # noqa: E731
MODES: dict[str, Wrap] = {
    "gradient": lambda plan: optax.chain(plan.gradient(), optax.adam(LR)),
    "decoupled": lambda plan: optax.chain(optax.adam(LR), plan.decoupled(LR)),
    "proximal": lambda plan: optax.chain(optax.adam(LR), plan.proximal(LR)),
    "halfspace": lambda plan: plan.halfspace(optax.adam(LR), average=0.9),
}
each_loop = pytest.mark.parametrize("loop", LOOPS)
each_mode = pytest.mark.parametrize("mode", MODES)


def soft(w: Any, threshold: Any) -> Any:
    return np.sign(w) * np.maximum(np.abs(w) - threshold, 0)


def by_hand(start: Weights, mode: str) -> Weights:
    """The weights after the steps, with NumPy and nothing of ours."""
    weights = [np.array(w) for w in start]
    adams = [Adam() for _ in weights]
    rules = [HalfSpace(w.ravel(), 0.9, smooth=lambda w: 2 * L2S * w) for w in weights]
    for t in range(STEPS):
        strength = L1S * min(t / RISE, 1)
        for i, g in enumerate(slopes(weights)):
            w, adam, rule = weights[i], adams[i], rules[i]
            if w.ndim == 1:  # a bias
                weights[i] = w + adam.step(g)[0]
                continue
            penalty = strength * np.sign(w) + 2 * L2S * w
            if mode in ("loss term", "gradient"):
                weights[i] = w + adam.step(g + penalty)[0]
            elif mode == "decoupled":
                weights[i] = w + adam.step(g)[0] - LR * penalty
            elif mode == "proximal":
                change, scale = adam.step(g)
                step = LR / scale
                weights[i] = soft(w + change, step * strength) / (1 + 2 * step * L2S)
            else:
                rule.element = strength
                given = rule.before(w.ravel(), g.ravel()).reshape(w.shape)
                new = w + adam.step(given)[0]
                weights[i] = rule.after(w.ravel(), new.ravel()).reshape(w.shape)
    return weights


@each_loop
@pytest.mark.parametrize("mode", ["loss term", *MODES])
def test_as_by_hand(loop: str, mode: str) -> None:
    run = LOOPS[loop](MODES.get(mode, LOSS), RULES, in_loss=mode not in MODES)
    start = run.weights
    run.train(STEPS)
    expected = by_hand(start, mode)
    for found, wanted in zip(run.weights, expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9)
        np.testing.assert_array_equal(found == 0, wanted == 0)


@each_loop
def test_strong_penalties_reach_zero(loop: str) -> None:
    def strong(plan: Plan) -> Any:
        return optax.chain(optax.adam(LR), plan.proximal(LR, 1e3))

    run = LOOPS[loop](strong, L1(L1S))
    run.train(5)
    assert all(np.any(w) == (w.ndim == 1) for w in run.weights)


@each_loop
@each_mode
def test_twice(loop: str, mode: str) -> None:
    run = LOOPS[loop](MODES[mode], L1(L1S), in_loss=True)
    with pytest.raises(AppliedTwiceError, match=r"plan\.penalty\(params\) in the loss of this st"):
        run.train(1)


def test_nnx_frozen_by_a_filter() -> None:
    """The optimizer has a part of the parameters, and the plan was made of that part."""
    net = nnx.Sequential(*(nnx.Linear(2, 2, rngs=nnx.Rngs(0)) for _ in range(2)))
    wrt = nnx.All(nnx.Param, nnx.PathContains(1))
    plan = regularize(nnx.state(net, wrt), L2(0.1))
    tx = optax.chain(plan.gradient(), optax.sgd(0.5))
    optimizer = nnx.Optimizer(net, tx, wrt=wrt)
    before = [layer.kernel[...] for layer in net.layers]
    zeros = jax.tree.map(jnp.zeros_like, nnx.state(net, wrt))
    optimizer.update(net, zeros)
    np.testing.assert_array_equal(net.layers[0].kernel[...], before[0])
    np.testing.assert_allclose(net.layers[1].kernel[...], before[1] * 0.9, rtol=1e-6)
