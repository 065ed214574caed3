"""Flax NNX: a network on handwritten digits that learns which pixels it does not need.

L1 on the first layer, applied by proximal steps behind Adam: exact zeros. Run it with
``python examples/jax_nnx_digits.py``; it needs jax, flax, optax and scikit-learn.
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from penalize import L1, L2, kernels
from penalize.jax import regularize

x, y = load_digits(return_X_y=True)
x_train, x_test, y_train, y_test = train_test_split(x / 16, y, random_state=0)
x_train, y_train = jnp.asarray(x_train, jnp.float32), jnp.asarray(y_train)


class Net(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(64, 32, rngs=rngs)
        self.out = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.relu(self.hidden(x)))


net = Net(nnx.Rngs(0))
plan = regularize(nnx.state(net, nnx.Param), {kernels: L2(1e-4), "hidden": L1(1e-3)})
rate = optax.cosine_decay_schedule(0.02, 600)
optimizer = nnx.Optimizer(net, optax.chain(optax.adam(rate), plan.proximal(rate)), wrt=nnx.Param)


@nnx.jit
def step(net, optimizer, x, y):
    def loss(net):
        return optax.softmax_cross_entropy_with_integer_labels(net(x), y).mean()

    value, gradients = nnx.value_and_grad(loss)(net)
    optimizer.update(net, gradients)
    return value


keys = jax.random.split(jax.random.key(0), 600)
for key in keys:
    batch = jax.random.randint(key, (128,), 0, len(x_train))
    data_loss = step(net, optimizer, x_train[batch], y_train[batch])

kernel = net.hidden.kernel[...]
accuracy = float((net(x_test).argmax(-1) == y_test).mean())
zeros = float((kernel == 0).mean())
print(plan)
print(f"data loss {data_loss:.4f}, penalty {plan.penalty(net):.4f}, accuracy {accuracy:.1%}")
print(f"{zeros:.1%} exact zeros, {int((kernel != 0).any(1).sum())} of 64 pixels used")
