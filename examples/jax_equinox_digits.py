"""Equinox: a network on handwritten digits that learns which pixels it does not need.

L1 on the first layer, applied by proximal steps behind Adam: exact zeros. Run it with
``python examples/jax_equinox_digits.py``; it needs jax, equinox, optax and scikit-learn.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from penalize import L1, L2, kernels
from penalize.jax import regularize

x, y = load_digits(return_X_y=True)
x_train, x_test, y_train, y_test = train_test_split(x / 16, y, random_state=0)
x_train, y_train = jnp.asarray(x_train, jnp.float32), jnp.asarray(y_train)

net = eqx.nn.MLP(64, 10, 32, 1, dtype=jnp.float32, key=jax.random.key(0))
plan = regularize(net, {kernels: L2(1e-4), "layers.0": L1(1e-3)})
rate = optax.cosine_decay_schedule(0.02, 600)
optimizer = optax.chain(optax.adam(rate), plan.proximal(rate))
state = optimizer.init(eqx.filter(net, eqx.is_inexact_array))


@eqx.filter_jit
def step(net, state, x, y):
    def loss(net):
        logits = jax.vmap(net)(x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    value, gradients = eqx.filter_value_and_grad(loss)(net)
    params = eqx.filter(net, eqx.is_inexact_array)
    updates, state = optimizer.update(gradients, state, params)
    return eqx.apply_updates(net, updates), state, value


for key in jax.random.split(jax.random.key(1), 600):
    batch = jax.random.randint(key, (128,), 0, len(x_train))
    net, state, data_loss = step(net, state, x_train[batch], y_train[batch])

kernel = net.layers[0].weight
accuracy = float((jax.vmap(net)(jnp.asarray(x_test)).argmax(-1) == y_test).mean())
zeros = float((kernel == 0).mean())
print(plan)
print(f"data loss {data_loss:.4f}, penalty {plan.penalty(net):.4f}, accuracy {accuracy:.1%}")
print(f"{zeros:.1%} exact zeros, {int((kernel != 0).any(0).sum())} of 64 pixels used")
