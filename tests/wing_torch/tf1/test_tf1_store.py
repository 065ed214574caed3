"""The store as a module: plans, roles, layout, states; the values it makes, the keys it knows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow
import torch
from torch import nn

from penalize import (
    L2,
    AppliedTwiceError,
    GroupLasso,
    GroupsError,
    PenaltyError,
    Role,
    VariableError,
    biases,
    kernels,
)
from penalize.torch import regularize, tf1
from penalize.torch.tf1.contrib.layers import apply_regularization

tf = tensorflow.compat.v1


@pytest.fixture
def store() -> Iterator[tf1.VariableStore]:
    with tf1.VariableStore() as store:
        yield store


def rows(model: nn.Module, rules: Any = None) -> dict[str, Any]:
    return {row.name: row for row in regularize(model, rules or {}).rows}


def ones(name: str, shape: list[int], **kwargs: Any) -> Any:
    return tf1.get_variable(name, shape, initializer=torch.ones, **kwargs)


# --- plans ----------------------------------------------------------------------------------

ROLES = {
    "net/dense/kernel": ([4, 3], Role.KERNEL),
    "net/dense/bias": ([3], Role.BIAS),
    "net/biases": ([3], Role.BIAS),
    "net/b": ([3], Role.BIAS),
    "net/weights": ([5, 5, 3, 8], Role.KERNEL),
    "net/BatchNorm/gamma": ([3], Role.NORM),
    "net/BatchNorm_1/moving_mean": ([3], Role.NORM),
    "LayerNorm/beta": ([3], Role.NORM),
    "BatchNorm/beta/part": ([3], Role.OTHER),
    "embedding/dense/kernel": ([4, 3], Role.KERNEL),
    "embedding/table": ([7, 3], Role.EMBEDDING),
    "net/word_embeddings": ([7, 3], Role.EMBEDDING),
    "kernel": ([4, 3], Role.KERNEL),
    "bias": ([3], Role.BIAS),
}


@pytest.mark.parametrize("inside", [False, True], ids=["itself", "inside a module"])
def test_roles_follow_the_names(inside: bool, store: tf1.VariableStore) -> None:
    for name, (shape, _) in ROLES.items():
        ones(name, shape)
    model = nn.ModuleDict({"store": store}) if inside else store
    prefix = "store." if inside else ""
    assert {name: row.role for name, row in rows(model).items()} == {
        f"{prefix}{name}": role for name, (_, role) in ROLES.items()
    }


def test_rules_select_by_the_names_of_tensorflow(store: tf1.VariableStore) -> None:
    for scope in ("net", "net2"):
        with tf1.variable_scope(scope), tf1.variable_scope("dense"):
            ones("kernel", [4, 3])
            ones("bias", [3])
    regularizer = GroupLasso(1.0, groups=0, size_weighted=False)
    for rule in ("net/dense", "net.dense.kernel", "net/*/kernel"):
        found = rows(store, {rule: regularizer})
        assert [name for name, row in found.items() if row.regularizer] == ["net/dense/kernel"]
    plan = regularize(store, {biases: regularizer})
    assert plan.breakdown() == {"net/dense/bias": 3.0, "net2/dense/bias": 3.0}


def test_a_frozen_variable_is_skipped(store: tf1.VariableStore) -> None:
    frozen = ones("frozen", [4, 3], trainable=False)
    ones("w", [4, 3])
    assert not frozen.requires_grad
    plan = regularize(store, {kernels: GroupLasso(1.0)})
    assert list(plan.breakdown()) == ["w"]


@pytest.mark.parametrize("shape", [[4, 3], [2, 4, 3], [5, 2, 4, 3]])
def test_the_outputs_are_on_the_last_axis(shape: list[int], store: tf1.VariableStore) -> None:
    w = tf1.get_variable("s/w", shape, regularizer=GroupLasso(1.0, size_weighted=False))
    others = tuple(range(len(shape) - 1))
    expected = w.square().sum(others).sqrt().sum()
    torch.testing.assert_close(tf1.losses.get_regularization_loss(), expected)
    store.clear_collection(tf1.GraphKeys.REGULARIZATION_LOSSES)
    plan = regularize(store, GroupLasso(1.0, size_weighted=False))
    torch.testing.assert_close(plan.penalty(), expected)
    applied = apply_regularization(GroupLasso(1.0, size_weighted=False), [w])
    torch.testing.assert_close(applied, expected)


def test_the_inputs_are_on_the_axis_before(store: tf1.VariableStore) -> None:
    regularizer = GroupLasso(1.0, groups="inputs", size_weighted=False)
    w = tf1.get_variable("s/w", [5, 2, 4, 3], regularizer=regularizer)
    expected = w.square().sum((0, 1, 3)).sqrt().sum()
    torch.testing.assert_close(tf1.losses.get_regularization_loss(), expected)
    table = tf1.get_variable("embedding/table", [7, 3])
    plan = regularize(store, {"embedding/table": regularizer})
    torch.testing.assert_close(plan.penalty(), table.norm(dim=1).sum())


def test_a_bias_has_no_inputs(store: tf1.VariableStore) -> None:
    with pytest.raises(GroupsError, match="'inputs' on 'net/b'"):
        ones("net/b", [3], regularizer=GroupLasso(1.0, groups="inputs"))
    ones("net/b", [3], regularizer=GroupLasso(1.0))
    assert tf1.losses.get_regularization_loss().item() == 3.0


def test_a_subclass_is_laid_out_alike_and_a_linear_layer_is_not(store: tf1.VariableStore) -> None:
    class Model(tf1.VariableStore):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3)

    with Model() as model:
        ones("w", [4, 3])
    plan = regularize(model, GroupLasso(1.0))
    assert {t.name: t.regularizer.groups for t in plan.targets()} == {"w": 1, "head.weight": 0}


def test_a_plan_trains_a_store(store: tf1.VariableStore) -> None:
    w = ones("net/w", [2, 2])
    optimizer = torch.optim.SGD(store.parameters(), lr=0.5)
    regularize(store, GroupLasso(1.0, size_weighted=False)).attach(optimizer, mode="proximal")
    w.square().sum().mul(0.0).backward()
    for _ in range(4):
        optimizer.step()
    assert w.tolist() == [[0.0, 0.0], [0.0, 0.0]]


# --- the module -------------------------------------------------------------------------------


def test_a_state_has_the_names_of_tensorflow(store: tf1.VariableStore) -> None:
    ones("net/w", [2])
    ones("net/step", [], dtype=torch.int64)
    state = store.state_dict()
    assert {name: value.tolist() for name, value in state.items()} == {
        "net/w": [1.0, 1.0],
        "net/step": 1,
    }
    with tf1.VariableStore() as other:
        tf1.get_variable("net/w", [2])
        tf1.get_variable("net/step", [], dtype=torch.int64)
    other.load_state_dict(state)
    assert other.get_parameter("net/w").tolist() == [1.0, 1.0]


def test_it_prints_its_variables(store: tf1.VariableStore) -> None:
    ones("net/w", [2, 3])
    ones("net/b", [3])
    assert str(store) == "VariableStore(\n  net/w: (2, 3)\n  net/b: (3,)\n)"


@pytest.mark.parametrize("name", ["train", "net.w", "training", "state_dict"])
def test_a_name_that_a_module_cannot_give(name: str, store: tf1.VariableStore) -> None:
    with pytest.raises(VariableError, match=rf"The name '{name}' cannot be given to a parameter"):
        ones(name, [2])
    with tf1.variable_scope("s"):
        if "." not in name:
            ones(name, [2])


def test_an_integer_is_trainable_in_the_collection_only(store: tf1.VariableStore) -> None:
    step = tf1.get_variable("step", initializer=3)
    assert tf1.trainable_variables() == [step]
    assert not step.requires_grad


def test_a_regularizer_must_give_a_scalar(store: tf1.VariableStore) -> None:
    def vector(w: Any) -> Any:
        return w.abs()

    message = r"^Vector returned a tensor of shape \(3,\) for 'net/w'; expected a scalar\.$"
    with pytest.raises(PenaltyError, match=message):
        ones("net/w", [3], regularizer=vector)


def test_a_regularizer_may_give_a_number(store: tf1.VariableStore) -> None:
    ones("w", [3], regularizer=lambda w: 0.25)
    assert tf1.losses.get_regularization_loss().item() == 0.25


# --- first values -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [[], [300], [200, 100], [3, 3, 40, 80]])
def test_glorot_uniform_as_in_tensorflow(shape: list[int], store: tf1.VariableStore) -> None:
    torch.manual_seed(0)
    w = tf1.get_variable("w", shape)
    with tf.Graph().as_default(), tf.Session() as session:
        theirs = session.run(tf.glorot_uniform_initializer(seed=0)(shape, tf.float32))
    fans = {0: 2, 1: 600, 2: 300, 4: 9 * 120}[len(shape)]
    limit = math.sqrt(6 / fans)
    for values in (w.detach().numpy(), theirs):
        assert np.abs(values).max() <= limit
        if values.size > 1:
            assert np.abs(values).max() > 0.98 * limit
            assert values.std() == pytest.approx(limit / math.sqrt(3), rel=0.1)


def test_the_default_follows_the_seed(store: tf1.VariableStore) -> None:
    values = []
    for name in ("a", "b"):
        torch.manual_seed(3)
        values.append(tf1.get_variable(name, [4]).tolist())
    assert values[0] == values[1]


def test_the_first_value_is_copied(store: tf1.VariableStore) -> None:
    value, array = torch.ones(2, requires_grad=True), np.ones(2, np.float32)
    a = tf1.get_variable("a", initializer=value)
    b = tf1.get_variable("b", initializer=array)
    c = tf1.get_variable("c", [2], initializer=lambda shape, dtype: value)
    d = tf1.get_variable("d", initializer=lambda: array)
    with torch.no_grad():
        for variable in (a, b, c, d):
            variable.zero_()
            assert variable.is_leaf
    assert value.tolist() == array.tolist() == [1.0, 1.0]


def test_kinds_of_initializers(store: tf1.VariableStore) -> None:
    class Twos:
        def __call__(self, shape: list[int], dtype: torch.dtype) -> Any:
            return np.full(shape, 2.0)

    assert tf1.get_variable("class", [2], initializer=Twos).tolist() == [2.0, 2.0]
    found = tf1.get_variable("object", [2], initializer=Twos(), dtype=torch.float16)
    assert (found.dtype, found.tolist()) == (torch.float16, [2.0, 2.0])
    assert tf1.get_variable("big", initializer=2**40).dtype is torch.int64
    assert tf1.get_variable("flag", initializer=True).dtype is torch.bool


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, "float64", np.float64, np.dtype("float64"), tensorflow.float64],
    ids=["torch", "name", "numpy type", "numpy dtype", "tensorflow"],
)
def test_kinds_of_dtypes(dtype: Any, store: tf1.VariableStore) -> None:
    assert tf1.get_variable("w", (2,), dtype=dtype).dtype is torch.float64


def test_the_default_dtype_of_torch_is_not_asked(store: tf1.VariableStore) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        assert tf1.get_variable("w", [2]).dtype is torch.float32
        assert tf1.get_variable("v", initializer=0.5).dtype is torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


# --- keys ---------------------------------------------------------------------------------------


def test_the_keys_have_tensorflows_values() -> None:
    names = [name for name in vars(tf1.GraphKeys) if not name.startswith("_")]
    assert {name: getattr(tf1.GraphKeys, name) for name in names} == {
        name: getattr(tf.GraphKeys, name) for name in names
    }
    theirs = {name for name in dir(tf.GraphKeys) if name.isupper() and not name.startswith("_")}
    assert set(names) == theirs


def test_rules_beside_a_declaration_are_refused(store: tf1.VariableStore) -> None:
    """The vocabulary's loss and the plan would both penalize the variable."""
    l2 = tf1.contrib.layers.l2_regularizer(0.5)
    tf1.get_variable("a/w", [2, 2], initializer=torch.ones, regularizer=l2)
    tf1.get_variable("b/w", [2, 2], initializer=torch.ones)
    naive = tf1.losses.get_regularization_loss() + L2(0.25)(store.get_parameter("a/w"))
    assert naive.item() == 2.0  # twice what was meant
    with pytest.raises(
        AppliedTwiceError, match=r"'a/w' .* by l2_regularizer\(scale=0.5\) in the collection"
    ):
        regularize(store, L2(0.25))
    plan = regularize(store, {kernels: L2(0.25), "a": None})
    assert plan.breakdown() == {"b/w": 1.0}
