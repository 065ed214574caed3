"""Training loops as each library writes them: equal to the loss term, and refused where doubled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from flax.training.train_state import TrainState

from penalize import L1, L2, AppliedTwiceError
from penalize.jax import Plan, regularize

LR, STEPS = 0.05, 5
RULES = L1(0.05) + L2(0.02)
KEY = jax.random.key(0)
_rng = np.random.default_rng(0)
X = jnp.asarray(_rng.normal(size=(16, 4)))
Y = jnp.asarray(_rng.normal(size=(16, 2)))

Wrap = Callable[[Plan], optax.GradientTransformation]
LOSS: Wrap = lambda plan: optax.adam(LR)  # noqa: E731
MODES: dict[str, Wrap] = {
    "gradient": lambda plan: optax.chain(plan.gradient(), optax.adam(LR)),
    "decoupled": lambda plan: optax.chain(optax.adam(LR), plan.decoupled(LR)),
    "proximal": lambda plan: optax.chain(optax.adam(LR), plan.proximal(LR)),
}


def mean_square(predicted: Any) -> Any:
    return jnp.mean((predicted - Y) ** 2)


def in_nnx(make: Wrap, in_loss: bool) -> list[Any]:
    class Net(nnx.Module):
        def __init__(self) -> None:
            rngs = nnx.Rngs(0)
            self.hidden = nnx.Linear(4, 3, rngs=rngs, param_dtype=jnp.float64)
            self.seen = nnx.BatchStat(jnp.zeros(3))
            self.out = nnx.Linear(3, 2, rngs=rngs, param_dtype=jnp.float64)

        def __call__(self, x: Any) -> Any:
            return self.out(jnp.tanh(self.hidden(x)))

    net = Net()
    plan = regularize(nnx.state(net, nnx.Param), RULES)
    optimizer = nnx.Optimizer(net, make(plan), wrt=nnx.Param)

    @nnx.jit
    def step(net: Net, optimizer: Any) -> None:
        def loss(net: Net) -> Any:
            return mean_square(net(X)) + (plan.penalty(net) if in_loss else 0.0)

        optimizer.update(net, nnx.grad(loss)(net))

    for _ in range(STEPS):
        step(net, optimizer)
    return [net.hidden.kernel[...], net.out.kernel[...]]


def in_equinox(make: Wrap, in_loss: bool) -> list[Any]:
    net = eqx.nn.MLP(4, 2, 3, 1, activation=jnp.tanh, dtype=jnp.float64, key=KEY)
    plan = regularize(net, RULES)
    tx = make(plan)
    state = tx.init(eqx.filter(net, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(net: Any, state: Any) -> Any:
        def loss(net: Any) -> Any:
            return mean_square(jax.vmap(net)(X)) + (plan.penalty(net) if in_loss else 0.0)

        gradients = eqx.filter_grad(loss)(net)
        updates, state = tx.update(gradients, state, eqx.filter(net, eqx.is_inexact_array))
        return eqx.apply_updates(net, updates), state

    for _ in range(STEPS):
        net, state = step(net, state)
    return [layer.weight for layer in net.layers]


def in_linen(make: Wrap, in_loss: bool) -> list[Any]:
    class Net(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            x = jnp.tanh(linen.Dense(3, param_dtype=jnp.float64)(x))
            return linen.Dense(2, param_dtype=jnp.float64)(x)

    net = Net()
    params = net.init(KEY, X)["params"]
    plan = regularize(params, RULES)
    state = TrainState.create(apply_fn=net.apply, params=params, tx=make(plan))

    @jax.jit
    def step(state: TrainState) -> TrainState:
        def loss(params: Any) -> Any:
            data = mean_square(state.apply_fn({"params": params}, X))
            return data + (plan.penalty(params) if in_loss else 0.0)

        return state.apply_gradients(grads=jax.grad(loss)(state.params))

    for _ in range(STEPS):
        state = step(state)
    return [layer["kernel"] for layer in state.params.values()]


LOOPS = {"nnx": in_nnx, "equinox": in_equinox, "linen": in_linen}
each_loop = pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)


@each_loop
def test_the_gradient_transform_is_the_loss_term(loop: Any) -> None:
    for found, expected in zip(loop(MODES["gradient"], False), loop(LOSS, True), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@each_loop
def test_strong_penalties_reach_zero(loop: Any) -> None:
    def strong(plan: Plan) -> Any:
        return optax.chain(optax.adam(LR), plan.proximal(LR, 1e3))

    assert all(not np.any(w) for w in loop(strong, False))


@each_loop
@pytest.mark.parametrize("mode", MODES)
def test_twice(loop: Any, mode: str) -> None:
    with pytest.raises(AppliedTwiceError, match=r"plan\.penalty\(params\) in the loss of this st"):
        loop(MODES[mode], True)


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
