"""Modules of Flax NNX without their dead units: equal outputs, and what stays."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from penalize import CompactError, ModelError, NothingToCutWarning
from penalize.jax import compact

ZERO = nnx.initializers.zeros_init()  # what is drawn would be compiled
RANDOM = np.random.default_rng(0)


def drawn(model: Any) -> Any:
    for path, v in nnx.iter_graph(model):
        if isinstance(v, nnx.Variable) and jnp.issubdtype(v.dtype, jnp.floating):
            w = RANDOM.uniform(0.5, 1.5, v.shape)
            v.set_value(
                jnp.asarray(w if path[-1] == "var" else w * RANDOM.choice([-1, 1], v.shape))
            )
    model.eval()
    return model


def zeros(variable: Any, *where: Any) -> None:
    w = np.array(variable[...])
    for each in where:
        w[each] = 0.0
    variable.set_value(jnp.asarray(w))


def run(model: Any, x: Any) -> Any:
    graph, state = nnx.split(model)
    return np.asarray(jax.jit(lambda state, x: nnx.merge(graph, state)(x))(state, x))


def apart(a: Any, b: Any) -> float:
    return float(np.abs(a - b).max() / np.abs(a).max())


class Network(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        conv, linear = (
            partial(kind, kernel_init=ZERO, rngs=rngs) for kind in (nnx.Conv, nnx.Linear)
        )
        self.a = conv(2, 5, (3, 3), padding="VALID")
        self.norm = nnx.BatchNorm(5, rngs=rngs)
        self.b = conv(5, 4, (3, 3))
        self.each = conv(4, 8, (2, 2), padding="VALID", feature_group_count=4)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.rest = nnx.Sequential(linear(32, 6), nnx.sigmoid, linear(6, 3), nnx.softmax)

    def __call__(self, x: Any) -> Any:
        x = nnx.leaky_relu(self.norm(self.a(x)))
        x = nnx.sigmoid(self.b(x))
        x = nnx.max_pool(x, (2, 2), strides=(2, 2))
        x = self.drop(nnx.silu(self.each(x)))
        return self.rest(x.reshape(len(x), -1))


def test_a_network() -> None:
    model, x = drawn(Network()), RANDOM.standard_normal((4, 8, 8, 2))
    zeros(model.a.kernel, np.s_[..., 1])  # not 0 behind the norm, before a border of zeros: stays
    zeros(model.norm.scale, 3)
    zeros(model.norm.bias, 3)  # 0 there
    zeros(model.b.kernel, np.s_[..., [0, 2]])  # a half behind the sigmoid
    zeros(model.rest.layers[0].kernel, np.s_[:, 2])
    zeros(model.rest.layers[2].kernel, 4)  # not read
    before = jax.tree.leaves(nnx.state(model, nnx.Param))
    smaller = compact(model, x[:2])
    assert [(row.name, row.before, row.after) for row in smaller] == [
        ("a.kernel", 5, 4),
        ("b.kernel", 4, 2),
        ("rest.layers.0.kernel", 6, 4),
        ("rest.layers.2.kernel", 3, 3),
    ]
    border = "'b.kernel' is applied at a border of zeros, where it would be another"
    assert smaller[0].kept == {f"it is a constant, not 0, and {border}": 1}
    assert smaller.indices("each.kernel", 3).tolist() == [2, 3, 6, 7]
    found, after = smaller.model, jax.tree.leaves(nnx.state(model, nnx.Param))
    assert all(a is b for a, b in zip(before, after, strict=True))
    assert type(found) is Network
    assert found.each.feature_group_count == found.each.in_features == 2
    assert found.norm.num_features == found.a.out_features == found.b.in_features == 4
    expected = run(model, x)
    assert apart(expected, run(found, x)) < 1e-5
    for layer in (found.b, found.rest.layers[2]):  # what constants add is what makes it equal
        layer.bias.set_value(0 * layer.bias[...])
    assert apart(expected, run(found, x)) > 1e-3


class Chain(nnx.Module):
    """Where unit 1 of the first layer is dead, and something is between it and its reader."""

    def __init__(self, between: Any = None, bias: bool = True) -> None:
        self.first = nnx.Linear(4, 6, kernel_init=ZERO, rngs=nnx.Rngs(0))
        self.last = nnx.Linear(6, 2, use_bias=bias, kernel_init=ZERO, rngs=nnx.Rngs(0))
        self.between = between

    def __call__(self, x: Any) -> Any:
        x = nnx.sigmoid(self.first(x))
        return self.last(x if self.between is None else self.between(x))


def dead(between: Any = None, bias: bool = True) -> Any:
    model = drawn(Chain(between, bias))
    zeros(model.first.kernel, np.s_[:, 1])
    return model


def doubled_if_there_are_six(x: Any) -> Any:
    return x * 2 if x.shape[-1] == 6 else x


def pointwise(x: Any) -> Any:
    return jnp.where(x > 0.3, nnx.gelu(x), 0.1) * x + 0.5


X = RANDOM.standard_normal((3, 5, 4)).astype(np.float32)
NUMBERS = np.arange(6.0)


@pytest.mark.parametrize(
    "between",
    [
        lambda x: nnx.avg_pool(pointwise(x), (2,), padding="SAME", count_include_pad=False),
        lambda x: jax.jit(nnx.softplus)(x).max(1, keepdims=True).mean(1) + jnp.ones(x.shape[-1]),
    ],
    ids=["average", "reduced"],
)
def test_what_is_between_two_layers_is_read(between: Any) -> None:
    model = dead(between)
    smaller = compact(model, X)
    assert smaller[0].after == 5
    x = X[:, :4]  # other sizes than those of the example
    assert apart(run(model, x), run(smaller.model, x)) < 1e-5


@pytest.mark.parametrize(
    ("between", "why"),
    [
        (lambda x: nnx.softmax(x), "reduce_max may take all of them together"),
        (lambda x: x * NUMBERS, "mul may take all of them together"),
        (lambda x: x.sum(1), "'last.kernel' reads it as another constant at another size"),
        (lambda x: x / x.shape[1], "'last.kernel' reads it as another constant at another size"),
        (lambda x: x[:, ::-1, ::-1], "rev may take all of them together"),
        (lambda x: x.reshape(-1, 5, 6), "its number stands in the model's code"),
        (lambda x: nnx.avg_pool(x, (3,), padding="SAME"), "but another one at a border of zeros"),
    ],
    ids=["softmax", "numbers", "sum", "size", "flipped", "reshaped", "border"],
)
def test_what_stays(between: Any, why: str) -> None:
    with pytest.warns(NothingToCutWarning, match="all 1 dead units of the Chain stay"):
        found = compact(model := dead(between), X)
    assert why in str(found)
    assert apart(run(model, X), run(found.model, X)) == 0


class Twice(nnx.Module):
    def __init__(self, how: str) -> None:
        self.first = nnx.Linear(4, 4, kernel_init=ZERO, rngs=nnx.Rngs(0))
        self.last = nnx.Linear(4, 4, kernel_init=ZERO, rngs=nnx.Rngs(0))
        self.how = how

    def __call__(self, x: Any) -> Any:
        if self.how == "twice":
            return self.last(self.first(self.first(x)))
        if self.how == "size":  # longer inputs take another way
            return self.last(self.first(x)) if x.shape[1] <= 5 else self.first(self.last(x))
        if self.how == "compiled":
            return nnx.jit(lambda layer, x: layer(x))(self.first, self.last(x))
        if self.how == "unused":
            return self.last(x)
        return self.last(self.last(x) + self.first(x))


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("twice", "'first' is called more than once"),
        ("size", "is used with other units at another size"),
        ("unused", "it is called where compact does not see it, or not at all"),
        ("sum", "add may take all of them together"),
    ],
)
def test_branches_and_layers_that_are_called_twice(how: str, why: str) -> None:
    model = drawn(Twice(how))
    zeros(model.first.kernel, np.s_[:, 1])
    with pytest.warns(NothingToCutWarning):
        assert why in str(compact(model, X))


def test_a_bias_is_given_where_it_is_needed() -> None:
    model = dead(bias=False)
    with pytest.warns(NothingToCutWarning):
        assert "'last.kernel' has no bias beside it to hold that" in str(compact(model, X))
    smaller = compact(model, X, biases=True)
    assert smaller.model.last.use_bias
    assert apart(run(model, X), run(smaller.model, X)) < 1e-5


def test_what_is_refused() -> None:
    training = Network()
    for model, x, said in [
        (training, X, "'drop' of this Network, a Dropout, is in training mode, .* model.eval"),
        (dead(), X[..., :3], r"JAX cannot trace a Chain on these inputs \(.*; give inputs that"),
        (
            drawn(Twice("compiled")),
            X,
            "JAX cannot trace a Twice .*; layers may not be called within",
        ),
        (linen.Dense(3), X, "Compact got a Dense; pass a module of Flax NNX"),
        ({"kernel": X}, X, "Compact got a dict; pass a module of Flax NNX"),
    ]:
        with pytest.raises(ModelError, match=said):
            compact(model, x)


def test_what_differs_is_not_returned() -> None:
    with pytest.raises(CompactError, match=r"The compacted Chain would not answer .* example"):
        compact(dead(doubled_if_there_are_six), X)
