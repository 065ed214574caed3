"""Trap 14: a shared layer, or several forward passes, penalized several times."""

from __future__ import annotations

import jax
import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from flax import nnx
from torch import nn

import penalize.jax
import penalize.keras
import penalize.tensorflow
from penalize import L2
from penalize.torch import regularize


class Recurrent(nn.Module):
    """Applies one layer three times, and holds it under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(4, 4)
        self.again = self.step

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            x = self.again(self.step(x))
        return x


def test_counted_once() -> None:
    model = Recurrent()
    calls: list[torch.Tensor] = []
    model.step.register_forward_hook(lambda m, *_: calls.append(m.weight.pow(2).sum()))
    plan = regularize(model, L2(1.0))
    model(torch.ones(2, 4))
    once = model.step.weight.pow(2).sum()
    naive_per_name = sum(
        p.pow(2).sum()
        for name, p in model.named_parameters(remove_duplicate=False)
        if name.endswith("weight")
    )
    torch.testing.assert_close(torch.stack(calls).sum(), 6 * once)
    torch.testing.assert_close(naive_per_name, 2 * once)
    torch.testing.assert_close(plan.penalty(), once)
    assert plan.rows[0].name == "step.weight"
    assert plan.rows[0].aliases == ("again.weight",)


class Penalizing(keras.layers.Layer):
    """The naive way in Keras: a penalty that is added in each call."""

    def __init__(self, inner: keras.layers.Layer) -> None:
        super().__init__()
        self.inner = inner

    def call(self, x: tf.Tensor) -> tf.Tensor:
        self.add_loss(tf.reduce_sum(self.inner.kernel.value**2))
        return self.inner(x)


def test_in_keras() -> None:
    shared = keras.layers.Dense(4, name="shared")
    nested = keras.Sequential([keras.Input((4,)), shared], name="nested")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, shared(nested(shared(inputs))))
    x = np.ones((2, 4), np.float32)

    naive = Penalizing(shared)
    outer = keras.Model(inputs, naive(naive(inputs)))
    outer(x)
    once = float((shared.kernel.numpy() ** 2).sum())
    assert float(sum(outer.losses)) == pytest.approx(2 * once, rel=1e-6)

    plan = penalize.keras.regularize(model, L2(1.0))
    model(x)
    assert float(sum(model.losses)) == pytest.approx(once, rel=1e-6)
    kernel = plan.rows[0]
    assert {kernel.name, *kernel.aliases} == {"shared.kernel", "nested.shared.kernel"}
    plan.detach()
    assert float(penalize.tensorflow.regularize(model, L2(1.0)).penalty()) == pytest.approx(once)


def test_in_a_module_of_tensorflow() -> None:
    class Net(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = tf.Variable(np.ones((2, 3)))
            self.second = self.first

    net = Net()
    naive = sum(tf.reduce_sum(w**2) for name, w in vars(net).items() if name in ("first", "second"))
    plan = penalize.tensorflow.regularize(net, L2(1.0))
    assert float(naive) == 12.0
    assert float(plan.penalty()) == 6.0
    assert (plan.rows[0].name, plan.rows[0].aliases) == ("first", ("second",))


def test_in_nnx() -> None:
    """The tree of a module has a shared layer twice."""

    class Net(nnx.Module):
        def __init__(self) -> None:
            self.first = nnx.Linear(2, 3, kernel_init=nnx.initializers.ones, rngs=nnx.Rngs(0))
            self.second = self.first

    net = Net()
    naive = sum((w**2).sum() for w in jax.tree.leaves(net) if w.ndim == 2)
    plan = penalize.jax.regularize(net, L2(1.0))
    assert float(naive) == 12.0
    assert float(plan.penalty(net)) == float(plan.penalty(nnx.state(net))) == 6.0
    kernel = next(row for row in plan.rows if row.regularizer)
    assert (kernel.name, kernel.aliases) == ("first.kernel", ("second.kernel",))
