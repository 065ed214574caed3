"""What a plan sees of a model: names, roles, axes, ties, and what is declared on variables."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers
from reference import raises

from penalize import (
    L1,
    L2,
    GroupLasso,
    MaxNorm,
    MinMaxNorm,
    NonNegative,
    Orthogonal,
    RegularizerError,
    UnitNorm,
    everything,
    kernels,
    of_type,
)
from penalize.keras import from_keras, regularize, to_keras
from penalize.keras.acting import behind
from penalize.keras.parameters import read
from penalize.keras.roles import axes_of


def rows(model: Any) -> dict[str, str]:
    return {parameter.name: parameter.role.value for parameter, _ in read(model)}


def built(layer: Any, *shape: int) -> Any:
    layer.build((None, *shape))
    return layer


def check_names_are_those_of_the_summary() -> None:
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    x = layers.BatchNormalization(name="bn")(x)
    backbone = keras.Model(inputs, layers.GlobalAveragePooling2D()(x), name="backbone")
    model = keras.Sequential([keras.Input((8, 8, 3)), backbone, layers.Dense(2, name="head")])
    assert rows(model) == {
        "backbone.conv.kernel": "kernel",
        "backbone.conv.bias": "bias",
        "backbone.bn.gamma": "norm",
        "backbone.bn.beta": "norm",
        "head.kernel": "kernel",
        "head.bias": "bias",
    }
    plan = regularize(model, {kernels: L2(0.1), "backbone/conv": L1(0.1)})
    assert {r.name: r.regularizer for r in plan.rows if r.regularizer} == {
        "backbone.conv.kernel": L1(0.1),
        "head.kernel": L2(0.1),
    }


def check_roles_by_layer() -> None:
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(10, 6, name="embed")(inputs)
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True, name="lstm"), name="both")(x)
    x = layers.GRU(4, return_sequences=True, name="gru")(x)
    x = layers.TimeDistributed(layers.Dense(4, name="dense"), name="each")(x)
    x = layers.MultiHeadAttention(2, 3, name="mha")(x, x)
    x = layers.LayerNormalization(name="ln")(x)
    x = layers.GroupNormalization(2, name="gn")(x)
    x = layers.PReLU(name="prelu")(x)
    x = layers.SpectralNormalization(layers.Dense(3, name="inner"), name="sn")(x)
    found = rows(keras.Model(inputs, x))
    assert found["embed.embeddings"] == "embedding"
    assert found["both.forward_lstm.lstm_cell.recurrent_kernel"] == "kernel"
    assert found["both.backward_lstm.lstm_cell.bias"] == "bias"
    assert found["gru.gru_cell.bias"] == "bias"  # a matrix
    assert found["each.dense.kernel"] == "kernel"
    assert found["mha.query.kernel"] == "kernel"
    assert found["mha.attention_output.bias"] == "bias"
    assert found["mha.key.bias"] == "bias"  # a matrix
    assert {found[n] for n in ("ln.gamma", "ln.beta", "gn.gamma", "gn.beta")} == {"norm"}
    assert found["prelu.alpha"] == "other"
    assert found["sn.inner.kernel"] == "kernel"
    assert "sn.kernel" not in found  # the wrapper's reference to the same variable


def check_axes_by_layer() -> None:
    def axes(layer: Any, *shape: int) -> dict[str, tuple[Any, Any]]:
        built(layer, *shape)
        return {
            p.name: (p.outputs_axis, p.inputs_axis) for p, _ in read(layer) if p.role == "kernel"
        }

    assert axes(layers.Dense(2), 3) == {"kernel": (1, 0)}
    assert axes(layers.Conv2D(4, 3), 8, 8, 2) == {"kernel": (3, 2)}
    assert axes(layers.Conv1D(4, 3, groups=2), 8, 2) == {"kernel": (2, None)}
    assert axes(layers.Conv2DTranspose(4, 3), 8, 8, 2) == {"kernel": (2, 3)}
    assert axes(layers.DepthwiseConv2D(3), 8, 8, 2) == {"kernel": (None, 2)}
    assert axes(layers.SeparableConv2D(4, 3), 8, 8, 2) == {
        "depthwise_kernel": (None, 2),
        "pointwise_kernel": (3, 2),
    }
    assert axes(layers.SimpleRNN(4), 5, 2) == {
        "simple_rnn_cell.kernel": (1, 0),
        "simple_rnn_cell.recurrent_kernel": (1, 0),
    }
    assert axes(layers.EinsumDense("abc,cd->abd", (None, 4)), 5, 2) == {"kernel": (1, 0)}
    assert axes(layers.EinsumDense("abc,dc->abd", (None, 4)), 5, 2) == {"kernel": (0, 1)}
    assert axes(layers.EinsumDense("abc,cde->abde", (None, 4, 3)), 5, 2) == {"kernel": (None, 0)}
    assert axes_of(layers.Embedding(5, 3), "embeddings", 2) == (1, 0)


def check_groups_are_resolved_per_variable() -> None:
    model = keras.Sequential(
        [keras.Input((8, 8, 2)), layers.Conv2D(4, 3), layers.Conv2DTranspose(3, 3)]
    )
    plan = regularize(model, GroupLasso(0.1, groups="outputs"))
    assert model.layers[0].kernel_regularizer == GroupLasso(0.1, groups=3)
    assert model.layers[1].kernel_regularizer == GroupLasso(0.1, groups=2)
    plan.detach()
    # One that was given at construction has words too, which Keras alone could not resolve.
    layer = layers.Dense(3, kernel_regularizer=GroupLasso(0.1, groups="inputs"))
    model = keras.Sequential([keras.Input((4,)), layer])
    regularize(model)
    assert layer.kernel_regularizer == GroupLasso(0.1, groups=0)
    assert len(model.losses) == 1


def check_a_layer_in_several_places_is_one_row() -> None:
    inputs = keras.Input((4,))
    shared = layers.Dense(4, name="shared")
    inner = keras.Model(inputs, shared(shared(inputs)), name="inner")
    again = keras.Input((4,))
    model = keras.Model(again, shared(inner(again)))
    plan = regularize(model, {"inner": L2(0.1)})
    kernel, _ = plan.rows
    assert (kernel.name, kernel.aliases) == ("inner.shared.kernel", ("shared.kernel",))
    assert len(model.losses) == 1
    value = (keras.ops.convert_to_numpy(shared.kernel) ** 2).sum() * 0.1
    np.testing.assert_allclose(plan.breakdown()["inner.shared.kernel"], value, rtol=1e-6)


class Tied(keras.Model):
    """A head that uses the embedding's variable: two owners, one weight; unnamed variables."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = layers.Embedding(7, 3, name="embed")
        self.blocks = [layers.Dense(3, name="block"), layers.Dense(3, name="block")]
        self.head = Head(self.embed)

    def call(self, x: Any) -> Any:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Head(layers.Layer):
    def __init__(self, embed: Any) -> None:
        super().__init__(name="head")
        self.table = embed

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(7, 7))
        self.kernel = self.table.embeddings
        self.built = True

    def call(self, x: Any) -> Any:
        weight = keras.ops.matmul(keras.ops.transpose(self.kernel), self.scale)
        return keras.ops.matmul(x, weight)


def check_a_subclassed_model_with_ties_and_equal_names() -> None:
    model = Tied()
    model(np.zeros((1, 2), "int32"))
    found = {p.name: p.aliases for p, _ in read(model)}
    assert "head.scale" in found  # the attribute: Keras calls it variable_17
    assert {"block.kernel", "block_1.kernel"} <= set(found)
    assert "head.embed.embeddings" in found["embed.embeddings"]
    plan = regularize(model, {"block_1": L2(0.1)})
    assert [r.name for r in plan.rows if r.regularizer] == ["block_1.kernel"]
    assert "not saved with the model: 'block_1.kernel'" in str(plan)


def check_of_type_sees_the_layers_around() -> None:
    class Block(layers.Layer):
        def __init__(self) -> None:
            super().__init__(name="block")
            self.dense = layers.Dense(2, name="dense")

        def build(self, shape: Any) -> None:
            self.dense.build(shape)
            self.built = True

        def call(self, x: Any) -> Any:
            return self.dense(x)

    model = keras.Sequential([keras.Input((2,)), Block(), layers.Dense(2, name="out")])
    plan = regularize(model, {of_type(Block): L2(0.1)})
    assert [r.name for r in plan.rows if r.regularizer] == ["block.dense.kernel"]


def check_what_was_never_trainable_is_no_row() -> None:
    model = keras.Sequential(
        [keras.Input((4,)), layers.BatchNormalization(name="bn"), layers.Dropout(0.5)]
    )
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(np.ones((4, 4)), np.ones((4, 4)), verbose=0)
    assert list(rows(model)) == ["bn.gamma", "bn.beta"]
    model.trainable = False
    assert list(rows(model)) == ["bn.gamma", "bn.beta"]


def check_what_is_on_a_variable_is_a_declaration() -> None:
    def mine(w: Any) -> Any:
        return 0.5 * keras.ops.sum(keras.ops.abs(w))

    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(4, name="a", kernel_regularizer=keras.regularizers.L1L2(0.1, 0.2)),
            layers.Dense(4, name="b", kernel_regularizer=mine, bias_regularizer=L2(0.3)),
            layers.Dense(4, name="c", kernel_regularizer="orthogonal_regularizer"),
        ]
    )
    before = [layer.kernel_regularizer for layer in model.layers]
    losses = float(keras.ops.convert_to_numpy(sum(model.losses)))
    plan = regularize(model, {kernels: L2(9.0), "a.kernel": L1(9.0)})
    a, _, b, bias, c, _ = plan.rows
    assert repr(a.regularizer) == "L1L2(l1=0.1, l2=0.2)"
    assert a.declared_at == "declare (on the variable)"
    assert "overrides L2(9.0) by rule kernels" in a.note
    assert repr(b.regularizer) == "mine"
    assert bias.regularizer == L2(0.3)
    assert c.regularizer == Orthogonal(0.01)
    assert [layer.kernel_regularizer for layer in model.layers] == before
    assert [behind(layer.kernel.regularizer) for layer in model.layers] == before
    np.testing.assert_allclose(sum(plan.breakdown().values()), losses, rtol=1e-6)
    np.testing.assert_allclose(
        float(keras.ops.convert_to_numpy(sum(model.losses))), losses, rtol=1e-6
    )


def check_conversions() -> None:
    w = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    tensor = keras.ops.convert_to_tensor(w)
    pairs = [
        (L1(0.1), keras.regularizers.L1(0.1)),
        (L2(0.1), keras.regularizers.L2(0.1)),
        (from_keras(keras.regularizers.L1L2(0.1, 0.2)), keras.regularizers.L1L2(0.1, 0.2)),
        (Orthogonal(0.1, "columns"), keras.regularizers.OrthogonalRegularizer(0.1, "columns")),
    ]
    for ours, theirs in pairs:
        assert from_keras(theirs) == ours
        back = to_keras(ours)
        assert type(back) is type(theirs)
        assert back.get_config() == theirs.get_config()
        value = float(keras.ops.convert_to_numpy(theirs(tensor)))
        np.testing.assert_allclose(float(ours(w)), value, rtol=1e-6)
    both = to_keras(L1(0.1) + L2(0.2) + L1(0.1))
    assert both.get_config() == {"l1": 0.2, "l2": 0.2}
    assert from_keras(L1(0.1)) == L1(0.1)


def check_constraints_are_converted() -> None:
    """The same projection, of dense kernels and of convolutions."""
    rng = np.random.default_rng(0)
    matrix, filters = rng.normal(size=(4, 3)), rng.normal(size=(2, 2, 3, 5))
    c = keras.constraints
    cases: list[tuple[Any, Any, int | None, Any]] = [
        (c.NonNeg(), NonNegative(), None, matrix),
        (c.MaxNorm(0.7), MaxNorm(0.7, groups=1), None, matrix),
        (c.MaxNorm(0.7, axis=1), MaxNorm(0.7, groups=0), 2, matrix),
        (c.MaxNorm(0.7, axis=-1), MaxNorm(0.7, groups=0), 2, matrix),
        (c.MaxNorm(0.7, axis=[0, 1]), MaxNorm(0.7, groups=()), 2, matrix),
        (c.MaxNorm(0.7, axis=[0, 1, 2]), MaxNorm(0.7, groups=3), None, filters),
        (c.MaxNorm(0.7, axis=0), MaxNorm(0.7, groups=(1, 2, 3)), 4, filters),
        (c.UnitNorm(), UnitNorm(groups=1), None, matrix),
        (c.UnitNorm(axis=(0, 1, 2)), UnitNorm(groups=3), None, filters),
        (c.MinMaxNorm(1.5, 2.0), MinMaxNorm(1.5, 2.0, groups=1), None, matrix),
    ]
    for theirs, ours, ndim, w in cases:
        assert from_keras(theirs, ndim=ndim) == ours
        projected = keras.ops.convert_to_numpy(theirs(keras.ops.convert_to_tensor(w)))
        np.testing.assert_allclose(ours.prox(w, 1.0), projected, rtol=1e-5, atol=1e-6)
    assert from_keras(NonNegative()) == NonNegative()
    raises(
        RegularizerError,
        "MinMaxNorm with rate=0.5, which goes a part of the way",
        lambda: from_keras(c.MinMaxNorm(0.0, 1.0, rate=0.5)),
    )
    raises(
        RegularizerError,
        "MaxNorm with axis=-1, which counts from the end; say how many axes the weight has",
        lambda: from_keras(c.MaxNorm(1.0, axis=-1)),
    )

    class Mine(c.MaxNorm):
        """May compute something else."""

    error = raises(RegularizerError, "got Mine, which has no", lambda: from_keras(Mine()))
    assert "NonNeg, MaxNorm, UnitNorm and MinMaxNorm of keras.constraints" in str(error)


def check_everything_is_one_rule() -> None:
    layer = built(layers.Dense(2), 3)
    plan = regularize(layer, {everything: L2(0.1)})
    assert [r.name for r in plan.rows if r.regularizer] == ["kernel", "bias"]
