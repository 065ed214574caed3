"""Many strengths in one program: ``jax.vmap`` over the strength of a plan's transforms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from penalize import L1, L2, GroupLasso, kernels
from penalize.jax import regularize

X = jnp.asarray(np.random.default_rng(0).normal(size=(40, 6)))
Y = jnp.tanh(X[:, 0] - X[:, 1])
STRENGTHS = jnp.asarray([0.3, 0.03, 0.003, 0.0])
LR = 0.05


def params():
    rng = np.random.default_rng(1)
    return {
        "a": {"kernel": jnp.asarray(rng.normal(size=(6, 5))), "bias": jnp.zeros(5)},
        "b": {"kernel": jnp.asarray(rng.normal(size=(5, 1))), "bias": jnp.zeros(1)},
    }


def loss(params, mask):
    hidden = jnp.tanh(X @ params["a"]["kernel"] + params["a"]["bias"])
    output = hidden @ params["b"]["kernel"] + params["b"]["bias"]
    return (mask * (output[:, 0] - Y) ** 2).sum() / mask.sum()


def trainer(rules, optimizer, mode):
    plan = regularize(params(), rules)

    def train(strength, mask):
        inner = optimizer(LR)
        if mode == "gradient":
            tx = optax.chain(plan.gradient(strength), inner)
        else:
            tx = optax.chain(inner, getattr(plan, mode)(LR, strength))

        def step(carry, _):
            held, state = carry
            updates, state = tx.update(jax.grad(loss)(held, mask), state, held)
            return (optax.apply_updates(held, updates), state), None

        (found, _), _ = jax.lax.scan(step, (params(), tx.init(params())), length=40)
        return found, loss(found, 1 - mask)

    return train


@pytest.mark.parametrize("mode", ["gradient", "decoupled", "proximal"])
@pytest.mark.parametrize("optimizer", [optax.sgd, optax.adam], ids=["sgd", "adam"])
@pytest.mark.parametrize(
    "rules",
    [GroupLasso(1.0, groups="outputs"), {kernels: L1(0.5) + L2(1.0), "b": None}],
    ids=repr,
)
def test_strengths_and_folds_together_are_those_one_by_one(rules, optimizer, mode):
    train = trainer(rules, optimizer, mode)
    masks = jnp.stack([jnp.arange(40) % 4 != fold for fold in range(4)]).astype(float)
    grid = jax.jit(jax.vmap(jax.vmap(train, (None, 0)), (0, None)))
    found, losses = grid(STRENGTHS, masks)
    assert losses.shape == (4, 4)
    alone = jax.jit(train)
    for i, strength in enumerate(STRENGTHS):
        for j in (0, 3):
            expected, its = alone(strength, masks[j])
            np.testing.assert_allclose(losses[i, j], its, rtol=1e-9, atol=1e-12)
            jax.tree.map(
                lambda a, b, i=i, j=j: np.testing.assert_allclose(a[i, j], b, rtol=0, atol=1e-9),
                found,
                expected,
            )


def test_the_penalty_in_the_loss_takes_a_traced_factor():
    plan = regularize(params(), L1(1.0))
    penalty = jax.vmap(lambda strength: strength * plan.penalty(params()))(STRENGTHS)
    np.testing.assert_allclose(penalty, STRENGTHS * plan.penalty(params()))
