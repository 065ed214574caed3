"""One small training, as the loops of Flax NNX, Equinox and Flax Linen write it; and by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx
from flax.training.train_state import TrainState

from penalize import Regularizer
from penalize.jax import Plan, regularize

LR = 0.05
_rng = np.random.default_rng(0)
X = _rng.normal(size=(16, 4))
Y = _rng.normal(size=(16, 2))

Wrap = Callable[[Plan], optax.GradientTransformation]
Weights = list[Any]
"""Kernel, as (inputs, outputs), and bias of the hidden layer, then those of the last."""


def mean_square(predicted: Any) -> Any:
    return jnp.mean((predicted - Y) ** 2)


class InNnx:
    """``nnx.Optimizer``; a variable that is not trained stands beside the parameters."""

    class Net(nnx.Module):
        def __init__(self, seed: int) -> None:
            rngs = nnx.Rngs(seed)
            self.hidden = nnx.Linear(4, 3, rngs=rngs, param_dtype=jnp.float64)
            self.seen = nnx.BatchStat(jnp.zeros(3))
            self.out = nnx.Linear(3, 2, rngs=rngs, param_dtype=jnp.float64)

        def __call__(self, x: Any) -> Any:
            return self.out(jnp.tanh(self.hidden(x)))

    def __init__(self, make: Wrap, rules: Regularizer, *, in_loss: bool = False, seed: int = 0):
        self.net = self.Net(seed)
        plan = regularize(nnx.state(self.net, nnx.Param), rules)
        self.optimizer = nnx.Optimizer(self.net, make(plan), wrt=nnx.Param)

        @nnx.jit
        def step(net: Any, optimizer: Any) -> None:
            at = optimizer.step[...]

            def loss(net: Any) -> Any:
                return mean_square(net(X)) + (plan.penalty(net, at=at) if in_loss else 0.0)

            optimizer.update(net, nnx.grad(loss)(net))

        self._step = step

    def train(self, steps: int) -> None:
        for _ in range(steps):
            self._step(self.net, self.optimizer)

    @property
    def state(self) -> Any:
        return nnx.state((self.net, self.optimizer))

    @state.setter
    def state(self, state: Any) -> None:
        nnx.update((self.net, self.optimizer), state)

    @property
    def weights(self) -> Weights:
        layers = self.net.hidden, self.net.out
        return [w[...] for layer in layers for w in (layer.kernel, layer.bias)]


class InEquinox:
    """A loop with ``eqx.filter_jit``, which carries the model and the state of the optimizer."""

    def __init__(self, make: Wrap, rules: Regularizer, *, in_loss: bool = False, seed: int = 0):
        key = jax.random.key(seed)
        net = eqx.nn.MLP(4, 2, 3, 1, activation=jnp.tanh, dtype=jnp.float64, key=key)
        plan = regularize(net, rules)
        tx = make(plan)
        self._both = net, tx.init(eqx.filter(net, eqx.is_inexact_array))

        @eqx.filter_jit
        def step(net: Any, state: Any) -> Any:
            at = optax.tree_utils.tree_get_all_with_path(state, "count")[0][1]

            def loss(net: Any) -> Any:
                data = mean_square(jax.vmap(net)(X))
                return data + (plan.penalty(net, at=at) if in_loss else 0.0)

            gradients = eqx.filter_grad(loss)(net)
            updates, state = tx.update(gradients, state, eqx.filter(net, eqx.is_inexact_array))
            return eqx.apply_updates(net, updates), state

        self._step = step

    def train(self, steps: int) -> None:
        for _ in range(steps):
            self._both = self._step(*self._both)

    @property
    def state(self) -> Any:
        return eqx.filter(self._both, eqx.is_array)

    @state.setter
    def state(self, state: Any) -> None:
        self._both = eqx.combine(state, self._both)

    @property
    def weights(self) -> Weights:
        return [w for layer in self._both[0].layers for w in (layer.weight.T, layer.bias)]


class InLinen:
    """``TrainState``."""

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            x = jnp.tanh(linen.Dense(3, param_dtype=jnp.float64)(x))
            return linen.Dense(2, param_dtype=jnp.float64)(x)

    def __init__(self, make: Wrap, rules: Regularizer, *, in_loss: bool = False, seed: int = 0):
        net = self.Net()
        params = net.init(jax.random.key(seed), X)["params"]
        plan = regularize(params, rules)
        self.state = TrainState.create(apply_fn=net.apply, params=params, tx=make(plan))

        @jax.jit
        def step(state: TrainState) -> TrainState:
            def loss(params: Any) -> Any:
                data = mean_square(state.apply_fn({"params": params}, X))
                return data + (plan.penalty(params, at=state.step) if in_loss else 0.0)

            return state.apply_gradients(grads=jax.grad(loss)(state.params))

        self._step = step

    def train(self, steps: int) -> None:
        for _ in range(steps):
            self.state = self._step(self.state)

    @property
    def weights(self) -> Weights:
        return [w for layer in self.state.params.values() for w in (layer["kernel"], layer["bias"])]


LOOPS: dict[str, Any] = {"nnx": InNnx, "equinox": InEquinox, "linen": InLinen}


def slopes(weights: Weights) -> Weights:
    """The gradient of the loss of the data, by hand."""
    kernel, bias, last, shift = weights
    hidden = np.tanh(X @ kernel + bias)
    out = 2 * (hidden @ last + shift - Y) / Y.size
    inner = out @ last.T * (1 - hidden**2)
    return [X.T @ inner, inner.sum(0), hidden.T @ out, out.sum(0)]


class Adam:
    """Adam with optax's defaults, by hand."""

    def __init__(self) -> None:
        self.t, self.mean, self.square = 0, 0.0, 0.0

    def step(self, g: Any) -> tuple[Any, Any]:
        """The change of a weight, and what its gradient was divided by."""
        self.t += 1
        self.mean = 0.9 * self.mean + 0.1 * g
        self.square = 0.999 * self.square + 0.001 * g * g
        scale = np.sqrt(self.square / (1 - 0.999**self.t)) + 1e-8
        return -LR * self.mean / (1 - 0.9**self.t) / scale, scale
