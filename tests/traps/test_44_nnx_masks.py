"""Trap 44: a tree of NNX variables and an optax mask that says what to penalize."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from penalize import L2
from penalize.jax import regularize


def make() -> nnx.Linear:
    return nnx.Linear(2, 2, bias_init=nnx.initializers.ones, rngs=nnx.Rngs(0))


def stepped(tx: Any) -> nnx.Linear:
    """One step without a data gradient."""
    net = make()
    optimizer = nnx.Optimizer(net, tx, wrt=nnx.Param)
    optimizer.update(net, jax.tree.map(jnp.zeros_like, nnx.state(net, nnx.Param)))
    return net


def test_naive() -> None:
    """A mask of the parameters' own structure, as optax asks for it."""
    mask = jax.tree.map(lambda w: w.ndim > 1, nnx.state(make(), nnx.Param))
    decay = optax.add_decayed_weights(0.2, mask=mask)
    with pytest.raises(ValueError, match=r"different types at key path"):
        stepped(optax.chain(decay, optax.sgd(0.5)))


def test_rules_take_the_kernel() -> None:
    fresh = make()
    plan = regularize(nnx.state(fresh, nnx.Param), L2(0.1))
    net = stepped(optax.chain(plan.gradient(), optax.sgd(0.5)))
    np.testing.assert_allclose(net.kernel[...], 0.9 * fresh.kernel[...], rtol=1e-6)
    np.testing.assert_array_equal(net.bias[...], 1.0)


def test_a_mask_is_accepted_too() -> None:
    fresh = make()
    state = nnx.state(fresh, nnx.Param)
    plan = regularize(state, L2(0.1))

    def mask(params: Any) -> Any:
        return jax.tree.map(lambda w: w.ndim > 1, params)

    net = stepped(optax.chain(optax.masked(plan.gradient(), mask), optax.sgd(0.5)))
    np.testing.assert_allclose(net.kernel[...], 0.9 * fresh.kernel[...], rtol=1e-6)
