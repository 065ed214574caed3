"""Flax Linen: a network on handwritten digits that learns which pixels it does not need.

L1 on the first layer, applied by proximal steps behind Adam: exact zeros. Run it with
``python examples/jax_linen_digits.py``; it needs jax, flax, optax and scikit-learn.
"""

import jax
import jax.numpy as jnp
import optax
from flax import linen
from flax.training.train_state import TrainState
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from penalize import L1, L2, kernels
from penalize.jax import regularize

x, y = load_digits(return_X_y=True)
x_train, x_test, y_train, y_test = train_test_split(x / 16, y, random_state=0)
x_train, y_train = jnp.asarray(x_train, jnp.float32), jnp.asarray(y_train)


class Net(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.relu(linen.Dense(32, name="hidden")(x))
        return linen.Dense(10, name="out")(x)


net = Net()
params = net.init(jax.random.key(0), x_train[:1])["params"]
plan = regularize(params, {kernels: L2(1e-4), "hidden": L1(1e-3)})
rate = optax.cosine_decay_schedule(0.02, 600)
optimizer = optax.chain(optax.adam(rate), plan.proximal(rate))
state = TrainState.create(apply_fn=net.apply, params=params, tx=optimizer)


@jax.jit
def step(state, x, y):
    def loss(params):
        logits = state.apply_fn({"params": params}, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    value, gradients = jax.value_and_grad(loss)(state.params)
    return state.apply_gradients(grads=gradients), value


for key in jax.random.split(jax.random.key(1), 600):
    batch = jax.random.randint(key, (128,), 0, len(x_train))
    state, data_loss = step(state, x_train[batch], y_train[batch])

kernel = state.params["hidden"]["kernel"]
accuracy = float((net.apply({"params": state.params}, x_test).argmax(-1) == y_test).mean())
zeros = float((kernel == 0).mean())
penalty = plan.penalty(state.params)
print(plan)
print(f"data loss {data_loss:.4f}, penalty {penalty:.4f}, accuracy {accuracy:.1%}")
print(f"{zeros:.1%} exact zeros, {int((kernel != 0).any(1).sum())} of 64 pixels used")
