"""Reading trees: names, roles, layouts and declarations, in each library of modules."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from penalize import (
    L1,
    L2,
    ArrayError,
    GroupLasso,
    GroupsError,
    ModelError,
    NoMatchError,
    RulesError,
    biases,
    embeddings,
    everything,
    kernels,
    norms,
    of_type,
)
from penalize.jax import Plan, regularize

KEY = jax.random.key(0)


def roles(plan: Plan) -> dict[str, str]:
    return {row.name: str(row.role) for row in plan.rows}


def penalized(plan: Plan) -> list[str]:
    return [row.name for row in plan.rows if row.regularizer is not None]


def test_dictionaries() -> None:
    params = {
        "encoder": [{"w": jnp.ones((3, 4)), "b": jnp.ones(4)}, {"w": jnp.ones((4, 4))}],
        "ln_1": {"scale": jnp.ones(4), "bias": jnp.ones(4)},
        "wte": {"embedding": jnp.ones((9, 4))},
        "temperature": jnp.ones(()),
    }
    plan = regularize(params, {kernels: L2(0.1), "encoder.1": L1(0.2)})
    assert roles(plan) == {
        "encoder.0.b": "bias",
        "encoder.0.w": "kernel",
        "encoder.1.w": "kernel",
        "ln_1.bias": "norm",
        "ln_1.scale": "norm",
        "temperature": "other",
        "wte.embedding": "embedding",
    }
    assert penalized(plan) == ["encoder.0.w", "encoder.1.w"]
    assert "overrides L2(0.1) by rule kernels (test_parameters.py:" in str(plan)
    np.testing.assert_allclose(plan.penalty(params), 0.1 * 12 + 0.2 * 16)


def test_a_scope_that_is_called_a_norm() -> None:
    """It holds no kernel, unless that says so itself, as in every other wing."""
    norm = {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4), "scale": jnp.ones((1, 4))}
    doubtful = {"weight": jnp.ones((3, 4)), "scale_kernel": jnp.ones((3, 4))}
    found = roles(regularize({"norm_1": norm, "ln_2": norm, "AdaLayerNorm_0": doubtful}))
    assert found.pop("norm_1.kernel") == found.pop("ln_2.kernel") == "kernel"
    assert set(found.values()) == {"norm"}


def test_abstract_trees() -> None:
    """Nothing is computed: a plan of what an initializer would return."""

    def init(key: jax.Array) -> Any:
        return {"kernel": jax.random.normal(key, (3, 4)), "bias": jnp.zeros(4)}

    plan = regularize(jax.eval_shape(init, KEY), L2(0.5))
    params = init(KEY)
    np.testing.assert_allclose(plan.penalty(params), 0.5 * (params["kernel"] ** 2).sum())


# --- Flax Linen -----------------------------------------------------------------------------


class Block(linen.Module):
    @linen.compact
    def __call__(self, x: Any, _: Any = None) -> Any:
        return linen.LayerNorm()(linen.Dense(4)(x)), None


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, tokens: Any) -> Any:
        x = linen.Embed(9, 4)(tokens)
        x = linen.Conv(5, (3,), name="conv")(x)
        x = linen.BatchNorm(use_running_average=False, name="bn")(x)
        x = linen.MultiHeadDotProductAttention(2, qkv_features=4, name="attention")(x)
        x = linen.Dense(4)(x)
        stack = linen.scan(
            Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3
        )
        return stack(name="stack")(x, None)[0]


def linen_params() -> Any:
    return jax.eval_shape(LinenNet().init, KEY, jnp.zeros((2, 6), int))["params"]


def test_linen() -> None:
    plan = regularize(linen_params(), {kernels: L2(0.1)})
    found = roles(plan)
    assert found["Embed_0.embedding"] == "embedding"
    assert {found[f"bn.{name}"] for name in ("scale", "bias")} == {"norm"}
    assert found["attention.query.bias"] == "bias"  # of two axes: heads
    assert found["stack.Dense_0.bias"] == "bias"  # of two axes: layers
    assert found["stack.LayerNorm_0.scale"] == found["stack.LayerNorm_0.bias"] == "norm"
    assert penalized(plan) == [name for name in found if name.endswith(".kernel")]


def test_linen_with_names_of_axes() -> None:
    """``with_partitioning`` puts every array into a box, which is no part of the name."""

    def named_axes(init: Any, *axes: str) -> Any:
        return linen.with_partitioning(init, axes)

    class Net(linen.Module):
        @linen.compact
        def __call__(self, tokens: Any) -> Any:
            init = linen.initializers.ones
            x = linen.Embed(9, 4, embedding_init=named_axes(init, "vocab", "in"))(tokens)
            kernel, bias = named_axes(init, "in", "out"), named_axes(init, "out")
            return linen.Dense(2, kernel_init=kernel, bias_init=bias)(x)

    params = Net().init(KEY, jnp.zeros((2, 6), int))["params"]
    plan = regularize(params, GroupLasso(0.1))
    assert roles(plan) == {
        "Dense_0.bias": "bias",
        "Dense_0.kernel": "kernel",
        "Embed_0.embedding": "embedding",
    }
    found = plan.prox(params, 100.0)
    assert type(found["Dense_0"]["kernel"]) is linen.Partitioned
    assert not np.any(found["Dense_0"]["kernel"].value)
    assert np.all(found["Embed_0"]["embedding"].value == 1)


def test_linen_variables_of_all_collections() -> None:
    """What is not in the collection ``params`` has to be left out by whoever plans."""
    variables = jax.eval_shape(LinenNet().init, KEY, jnp.zeros((2, 6), int))
    plan = regularize(variables, {"params": L2(0.1)})
    assert all(name.startswith("params.") for name in penalized(plan))
    assert roles(plan)["batch_stats.bn.mean"] == "norm"


# --- Flax NNX -------------------------------------------------------------------------------


class NnxNet(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Embed(9, 4, rngs=rngs)
        self.conv = nnx.Conv(4, 6, (3,), feature_group_count=2, rngs=rngs)
        self.up = nnx.ConvTranspose(6, 4, (3,), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.blocks = nnx.List([nnx.Linear(4, 4, rngs=rngs) for _ in range(2)])
        self.shared = self.blocks[1]
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.gate = nnx.Param(jnp.ones((4, 4)), reg=L1(0.3))
        self.skip = nnx.Param(jnp.ones((4, 4)), reg=None)
        self.free = nnx.Param(jnp.ones((4, 4)))


NNX_NAMES = [
    "blocks.0.kernel",
    "blocks.1.kernel",
    "conv.kernel",
    "free",
    "gate",
    "up.kernel",
]


def nnx_net() -> NnxNet:
    return NnxNet(nnx.Rngs(0))


@pytest.mark.parametrize(
    "view",
    [
        lambda net: net,
        lambda net: nnx.state(net),
        lambda net: nnx.state(net, nnx.Param),
        lambda net: nnx.split(net)[1],
        lambda net: nnx.eval_shape(nnx_net),
    ],
    ids=["module", "state", "params", "split", "abstract"],
)
def test_nnx(view: Any) -> None:
    """A module, its states, and what they all have in common: the names."""
    net = nnx_net()
    plan = regularize(view(net), L2(0.1))
    assert penalized(plan) == NNX_NAMES
    by_name = {row.name: row for row in plan.rows}
    assert by_name["gate"].regularizer == L1(0.3)
    assert by_name["gate"].declared_at == "metadata (Param(reg=))"
    assert by_name["gate"].note.startswith("overrides L2(0.1) by rule kernels")
    assert by_name["skip"].regularizer is None
    kernels_of = [net.blocks[0], net.blocks[1], net.conv, net.up]
    expected = 0.1 * sum((layer.kernel[...] ** 2).sum() for layer in kernels_of)
    expected += 0.1 * 16 + 0.3 * 16
    for params in (net, nnx.state(net), nnx.state(net, nnx.Param)):
        np.testing.assert_allclose(plan.penalty(params), expected, rtol=1e-6)
    pure = nnx.to_pure_dict(nnx.state(net, nnx.Param))
    np.testing.assert_allclose(plan.penalty(pure), expected, rtol=1e-6)


def test_nnx_modules_tell_what_they_are() -> None:
    plan = regularize(nnx_net(), {kernels: L2(0.1), of_type(nnx.Conv): L1(0.2), norms: L2(0.3)})
    rows = {row.name: row for row in plan.rows}
    assert rows["conv.kernel"].regularizer == L1(0.2)
    assert rows["norm.scale"].regularizer == rows["norm.bias"].regularizer == L2(0.3)
    assert "a BatchStat; skipped: frozen" in rows["norm.mean"].note
    assert "of dtype uint32" in rows["drop.rngs.count"].note
    assert rows["blocks.1.kernel"].aliases == ("shared.kernel",)


def test_a_tied_variable_of_nnx_is_one_under_both_names() -> None:
    net = nnx_net()
    net.gate = None
    plan = regularize(net, {"shared.kernel": L2(1.0)})
    assert penalized(plan) == ["blocks.1.kernel"]
    once = (net.shared.kernel[...] ** 2).sum()
    leaves = {
        jax.tree_util.keystr(path, simple=True, separator="."): w
        for path, w in jax.tree_util.tree_leaves_with_path(net)
    }
    naive = sum((leaves[f"{n}.kernel.value"] ** 2).sum() for n in ("blocks.1", "shared"))
    np.testing.assert_allclose(naive, 2 * once, rtol=1e-6)
    np.testing.assert_allclose(plan.penalty(net), once, rtol=1e-6)


def test_a_declaration_that_is_none() -> None:
    net = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    net.extra = nnx.Param(jnp.ones(3), reg="l1")
    with pytest.raises(RulesError, match=r"'extra' declares reg='l1', a str; .* Write Param\(val"):
        regularize(net, L2(0.1))


def test_stacked_layers_of_nnx() -> None:
    @nnx.vmap
    def make(rngs: nnx.Rngs) -> nnx.Linear:
        return nnx.Linear(2, 4, rngs=rngs)

    net = make(nnx.Rngs(0).split(3))
    assert roles(regularize(net, L2(0.1))) == {"bias": "bias", "kernel": "kernel"}
    with pytest.raises(GroupsError, match="'kernel'"):
        regularize(net, GroupLasso(0.1))  # of which layer's outputs?
    regularize(net, GroupLasso(0.1, groups=(0, 2)))


# --- Equinox --------------------------------------------------------------------------------


class EqxNet(eqx.Module):
    mlp: eqx.nn.MLP
    norm: eqx.nn.LayerNorm
    attention: eqx.nn.MultiheadAttention
    embed: eqx.nn.Embedding
    steps: int = 3
    label: str = eqx.field(static=True, default="net")


def eqx_net() -> EqxNet:
    return EqxNet(
        eqx.nn.MLP(3, 2, 4, 1, key=KEY),
        eqx.nn.LayerNorm(4),
        eqx.nn.MultiheadAttention(2, 4, key=KEY),
        eqx.nn.Embedding(5, 4, key=KEY),
    )


@pytest.mark.parametrize("view", [lambda net: net, lambda net: eqx.filter(net, eqx.is_array)])
def test_equinox(view: Any) -> None:
    """Filtered or not: attributes that are no arrays are configuration."""
    net = eqx_net()
    plan = regularize(view(net), {kernels: L2(0.1), embeddings: L1(0.2)})
    found = roles(plan)
    assert found["mlp.layers.0.weight"] == "kernel"
    assert found["norm.weight"] == found["norm.bias"] == "norm"
    assert found["attention.query_proj.weight"] == "kernel"
    assert "steps" not in found
    expected = 0.2 * jnp.abs(net.embed.weight).sum() + 0.1 * sum(
        (w**2).sum()
        for w in jax.tree.leaves(eqx.filter((net.mlp, net.attention), eqx.is_array))
        if w.ndim == 2
    )
    for params in (net, eqx.filter(net, eqx.is_inexact_array)):
        np.testing.assert_allclose(plan.penalty(params), expected, rtol=1e-6)


def test_equinox_frozen_by_partition() -> None:
    """None where the filter left something out: it is out of the value."""
    net = eqx_net()
    plan = regularize(net, L2(0.1))
    mask = eqx.tree_at(lambda m: m.mlp, jax.tree.map(lambda _: False, net), True)
    trained, _ = eqx.partition(net, jax.tree.map(lambda m: m, mask))
    layers = [layer.weight for layer in net.mlp.layers]
    expected = 0.1 * sum((w**2).sum() for w in layers)
    np.testing.assert_allclose(plan.penalty(trained), expected, rtol=1e-6)


# --- Haiku ----------------------------------------------------------------------------------


def test_haiku() -> None:
    def f(x: Any) -> Any:
        x = hk.nets.MLP([4, 4])(x)
        x = hk.LayerNorm(-1, create_scale=True, create_offset=True)(x)
        return hk.Embed(5, 3)(jnp.array([1])), hk.Conv1D(3, 3)(x[None])

    params = hk.transform(f).init(KEY, jnp.ones((2, 3)))
    plan = regularize(params, {kernels: L2(0.1), "mlp": L1(0.2), "embed": None})
    assert roles(plan) == {
        "conv1_d.b": "bias",
        "conv1_d.w": "kernel",
        "embed.embeddings": "embedding",
        "layer_norm.offset": "norm",
        "layer_norm.scale": "norm",
        "mlp/~/linear_0.b": "bias",
        "mlp/~/linear_0.w": "kernel",
        "mlp/~/linear_1.b": "bias",
        "mlp/~/linear_1.w": "kernel",
    }
    found = {row.name: row.regularizer for row in plan.rows if row.regularizer}
    layers = {"mlp/~/linear_0.w": L1(0.2), "mlp/~/linear_1.w": L1(0.2)}
    assert found == {"conv1_d.w": L2(0.1), **layers}


# --- layouts --------------------------------------------------------------------------------


def eqx_conv(groups: int) -> Any:
    return eqx.nn.Conv2d(4, 6, 3, groups=groups, key=KEY)


def stacked() -> Any:
    return eqx.filter_vmap(lambda key: eqx.nn.Linear(3, 2, key=key))(jax.random.split(KEY, 5))


LAYOUTS: dict[str, tuple[Any, str, int | None, int | None]] = {
    "dict": (lambda: {"w": jnp.ones((3, 4))}, "w", 1, 0),
    "a weight of either order": (lambda: {"weight": jnp.ones((3, 4))}, "weight", None, None),
    "linen Conv": (linen_params, "conv.kernel", 2, 1),
    "linen Dense": (linen_params, "Dense_0.kernel", 1, 0),
    "linen Embed": (linen_params, "Embed_0.embedding", 1, 0),
    "linen attention": (linen_params, "attention.query.kernel", None, None),
    "linen scan": (linen_params, "stack.Dense_0.kernel", None, None),
    "nnx Linear": (nnx_net, "blocks.0.kernel", 1, 0),
    "nnx Conv in groups": (nnx_net, "conv.kernel", 2, None),
    "nnx ConvTranspose": (nnx_net, "up.kernel", None, None),
    "equinox Linear": (eqx_net, "mlp.layers.0.weight", 0, 1),
    "equinox Embedding": (eqx_net, "embed.weight", 1, 0),
    "equinox Conv2d": (lambda: eqx_conv(1), "weight", 0, 1),
    "equinox Conv2d in groups": (lambda: eqx_conv(2), "weight", 0, None),
    "equinox, stacked": (stacked, "weight", None, None),
}


@pytest.mark.parametrize(("make", "name", "outputs", "inputs"), LAYOUTS.values(), ids=LAYOUTS)
def test_layouts(make: Any, name: str, outputs: int | None, inputs: int | None) -> None:
    params = make()
    for word, axis in (("outputs", outputs), ("inputs", inputs)):
        rules = {name: GroupLasso(0.1, groups=word)}
        if axis is None:
            with pytest.raises(GroupsError, match=f"groups='{word}' on '{name}'"):
                regularize(params, rules)
        else:
            (row,) = [row for row in regularize(params, rules).rows if row.name == name]
            plan = regularize(params, {name: GroupLasso(0.1, groups=axis)})
            arrays = jax.tree.map(lambda w: jnp.ones(w.shape) if hasattr(w, "shape") else w, params)
            np.testing.assert_allclose(
                regularize(params, rules).penalty(arrays), plan.penalty(arrays)
            )
            assert row.regularizer == GroupLasso(0.1, groups=word)


# --- bad input ------------------------------------------------------------------------------


def test_none_is_left_out() -> None:
    plan = regularize({"w": jnp.ones((2, 2)), "b": None}, L2(1.0))
    assert [row.name for row in plan.rows] == ["w"]


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (1.0, r"'w' is 1\.0, a float; pass a tree of arrays; .*jax\.numpy\.asarray"),
        (3, r"'w' is 3, a int"),
        ("kernel", r"'w' is 'kernel', a str"),
    ],
)
def test_leaves_that_are_no_arrays(leaf: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        regularize({"w": leaf}, L2(1.0))


@pytest.mark.parametrize("dtype", ["int32", "complex64", "bool"])
def test_arrays_that_are_not_trained(dtype: str) -> None:
    params = {"w": jnp.ones((2, 2)), "table": jnp.ones((2, 2), dtype)}
    with pytest.raises(ArrayError, match=rf"'table' of dtype {dtype}; expected .* gives None"):
        regularize(params, L2(1.0))
    plan = regularize(params, {everything: L2(1.0), "table": None})
    assert penalized(plan) == ["w"]


@pytest.mark.parametrize("tree", [{}, [], None, {"f": jnp.tanh}])
def test_a_tree_without_arrays(tree: Any) -> None:
    with pytest.raises(ModelError, match=r"has no arrays; pass the parameters, as init\(\)"):
        regularize(tree, L2(1.0))


def test_names_that_collide() -> None:
    with pytest.raises(ModelError, match=r"Two arrays of this tree are called 'a\.b'"):
        regularize({"a": {"b": jnp.ones(2)}, "a.b": jnp.ones(2)}, L2(1.0))


def test_a_typo() -> None:
    with pytest.raises(NoMatchError, match="nearest names are 'encoder'"):
        regularize({"encoder": {"w": jnp.ones((2, 2))}}, {"encodr": L2(1.0)})


def test_roles_can_be_corrected() -> None:
    params = {"w": jnp.ones((2, 2)), "table": jnp.ones((9, 2))}
    plan = regularize(params, L2(1.0), roles={"table": "embedding"})
    assert penalized(plan) == ["w"]


@pytest.mark.parametrize("tree", [jnp.ones((3, 2)), 3.0, "kernel"], ids=str)
def test_what_is_no_tree(tree: Any) -> None:
    with pytest.raises(ModelError, match=r'put an array into a dictionary, \{"w": array\}'):
        regularize(tree, {everything: L2(1.0)})


class OwnLayer(eqx.Module):
    """Of Equinox, and not laid out as its own layers are."""

    kernel: jax.Array
    parts: list[Any]


def test_groups_of_a_module_of_ones_own_follow_names() -> None:
    layer = OwnLayer(jnp.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]), [jax.nn.relu, 2])
    value = regularize(layer, GroupLasso(1.0, groups="outputs")).penalty(layer)
    np.testing.assert_allclose(value, np.sqrt(14.0) * np.sqrt(3.0))


def test_groups_where_the_axes_are_not_known() -> None:
    """A stack of convolutions, an einsum, a bias with two axes: refused, never guessed."""

    @nnx.vmap(in_axes=0, out_axes=0)
    def stacked(key: Any) -> nnx.Conv:
        return nnx.Conv(2, 3, (3, 3), rngs=nnx.Rngs(key))

    cases = [
        stacked(jax.random.split(jax.random.key(0), 4)),
        nnx.Einsum("ab,cb->ac", (5, 3), rngs=nnx.Rngs(0)),
        {"deconv": {"w": jnp.ones((3, 3, 2, 4))}},
        {"attention": {"bias": jnp.ones((2, 4))}},
    ]
    for tree in cases:
        with pytest.raises(GroupsError, match="no single axis holds the outputs"):
            regularize(tree, {kernels | biases: GroupLasso(1.0, groups="outputs")})


def test_what_was_tied_or_replaced_after_the_plan_is_refused() -> None:
    """Both penalties on the one, or none on the other, would be a wrong number."""
    model = NnxNet(nnx.Rngs(0))
    plan = regularize(model, {"blocks": L2(0.1)})
    model.blocks[1].kernel = model.blocks[0].kernel
    with pytest.raises(ModelError, match=r"lacks 'blocks\.1\.kernel', unlike the one"):
        plan.penalty(model)
    tied = regularize(model, {"blocks": L2(0.1)})
    expected = 0.1 * (model.blocks[0].kernel[...] ** 2).sum()
    found = tied.breakdown(model)
    assert [name for name in found if "blocks" in name] == ["blocks.0.kernel"]
    np.testing.assert_allclose(found["blocks.0.kernel"], expected, rtol=1e-6)
    model.blocks[1] = nnx.Linear(4, 4, rngs=nnx.Rngs(1))
    with pytest.raises(ModelError, match=r"'blocks\.1\.kernel' is an array of its own here"):
        tied.penalty(model)
    other = regularize(model, {"blocks": L2(0.1)})
    model.blocks[1] = nnx.Linear(4, 5, rngs=nnx.Rngs(1))
    with pytest.raises(ModelError, match=r"'blocks\.1\.kernel' has the shape \(4, 5\) here"):
        other.penalty(model)
