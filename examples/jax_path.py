"""Many strengths at once in JAX: one training under ``jax.vmap``, on scikit-learn's digits.

A transform of a plan takes a strength that may be traced, so a whole path is one compiled program.
Run it with ``python examples/jax_path.py``; it needs jax, optax and scikit-learn.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

from penalize import L1
from penalize.jax import regularize

x, y = load_digits(return_X_y=True)
X, Y = jnp.asarray(x / 16, jnp.float32), jnp.asarray(y)
TRAIN, HELD_OUT, EPOCHS, LR = slice(0, 1400), slice(1400, None), 150, 0.05

normal = jax.random.normal
params = {
    "hidden": {"kernel": 0.1 * normal(jax.random.key(0), (64, 32)), "bias": jnp.zeros(32)},
    "out": {"kernel": 0.1 * normal(jax.random.key(1), (32, 10)), "bias": jnp.zeros(10)},
}
plan = regularize(params, L1(1.0))


def logits(params, x):
    hidden = jax.nn.relu(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return hidden @ params["out"]["kernel"] + params["out"]["bias"]


def loss(params, rows):
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, X[rows]), Y[rows]).mean()


def train(strength):
    """The weights at one strength, and the loss on what is held out."""
    tx = optax.chain(optax.adam(LR), plan.proximal(LR, strength))

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params, TRAIN), state, params)
        return (optax.apply_updates(params, updates), state), None

    (found, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=EPOCHS)
    return found, loss(found, HELD_OUT)


strengths = np.geomspace(1e-2, 1e-5, 10)
paths, losses = jax.jit(jax.vmap(train))(jnp.asarray(strengths))
zeros = jnp.mean(paths["hidden"]["kernel"] == 0, axis=(1, 2))
for strength, held_out, part in zip(strengths, losses, zeros, strict=True):
    print(f"{strength:.1e}  loss {held_out:.3f}  {part:.1%} exact zeros")
best = strengths[int(jnp.argmin(losses))]
print(f"best {best:.1e}")
