"""Proximal steps of penalties that flatten out, as in the PyTorch wing."""

from __future__ import annotations

from collections.abc import Callable

import flattening
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from penalize.jax import regularize

Rate = Callable[[jax.Array], jax.Array]
OPTIMIZERS: dict[str, Callable[[Rate], optax.GradientTransformation]] = {
    "adam": lambda rate: optax.adam(rate, b1=0.8, b2=0.9),
    "nadam": lambda rate: optax.nadam(rate, b1=0.8, b2=0.9),
    "amsgrad": lambda rate: optax.amsgrad(rate, b1=0.8, b2=0.9),
    "adamax": lambda rate: optax.adamax(rate, b1=0.8, b2=0.9),
    "adagrad": optax.adagrad,
    "rmsprop": lambda rate: optax.rmsprop(rate, decay=0.9),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_ends_at_the_minimum(name: str) -> None:
    problems = dict(flattening.PROBLEMS)
    targets = {name: jnp.asarray(flattening.target(name)) for name in problems}
    params = {name: jnp.asarray(flattening.start(name)) for name in problems}

    def rate(t: jax.Array) -> jax.Array:
        largest = 0.2 if name == "adagrad" else 0.02
        return largest * (1 - t / flattening.STEPS)

    tx = optax.chain(OPTIMIZERS[name](rate), regularize(params, problems).proximal(rate))

    def step(carry: tuple, _: None) -> tuple[tuple, None]:
        params, state = carry
        gradients = jax.tree.map(jnp.subtract, params, targets)
        updates, state = tx.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), None

    (found, _), _ = jax.lax.scan(step, (params, tx.init(params)), None, flattening.STEPS)
    flattening.check({name: np.asarray(w) for name, w in found.items()})
