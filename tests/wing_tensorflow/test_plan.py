"""Plans for TensorFlow: variables, modules and Keras models; loss terms in TF 2 and TF 1."""

from __future__ import annotations

import collections
import pickle
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from penalize import (
    L1,
    L2,
    ArrayError,
    GroupLasso,
    GroupsError,
    ModelError,
    NeverAppliedWarning,
    NoMatchError,
    biases,
    embeddings,
    everything,
    kernels,
    log,
    norms,
    of_type,
    warmup,
)
from penalize.tensorflow import regularize

v1 = tf.compat.v1


def variable(name: str, *shape: int, **arguments: Any) -> tf.Variable:
    seed = sum(map(ord, name))
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return tf.Variable(values, name=name, **arguments)


class Dense(tf.Module):
    def __init__(self, inputs: int, outputs: int, name: str | None = None) -> None:
        super().__init__(name=name)
        self.kernel = variable("kernel", inputs, outputs)
        self.bias = variable("bias", outputs)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return x @ self.kernel + self.bias


class LayerNorm(tf.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.gain = variable("gain", size)


class Net(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = variable("table", 7, 4)
        self.blocks = [Dense(4, 4), Dense(4, 4)]
        self.norm = LayerNorm(4)
        self.heads = {"left": Dense(4, 2), "right": Dense(4, 3)}
        self.again = self.blocks[0]
        self.parent = self  # a cycle
        self.step = tf.Variable(0, trainable=False)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        for block in self.blocks:
            x = tf.nn.relu(block(x))
        return self.heads["left"](x)


def roles(plan: Any) -> dict[str, str]:
    return {row.name: row.role.value for row in plan.rows}


def penalized(plan: Any) -> dict[str, Any]:
    return {row.name: row.regularizer for row in plan.rows if row.regularizer is not None}


def test_a_module() -> None:
    net = Net()
    plan = regularize(net, {kernels: L2(0.1), "blocks.1": L1(0.2), "heads.right": None})
    assert roles(plan) == {
        "embedding": "embedding",
        "blocks.0.kernel": "kernel",
        "blocks.0.bias": "bias",
        "blocks.1.kernel": "kernel",
        "blocks.1.bias": "bias",
        "norm.gain": "norm",
        "heads.left.kernel": "kernel",
        "heads.left.bias": "bias",
        "heads.right.kernel": "kernel",
        "heads.right.bias": "bias",
        "step": "other",
    }
    assert penalized(plan) == {
        "blocks.0.kernel": L2(0.1),
        "blocks.1.kernel": L1(0.2),
        "heads.left.kernel": L2(0.1),
    }
    (first,) = [row for row in plan.rows if row.name == "blocks.0.kernel"]
    assert first.aliases == ("again.kernel",)
    assert plan.rows[-1].note == "skipped: frozen"
    expected = {name: float(r(_at(net, name))) for name, r in penalized(plan).items()}
    assert plan.breakdown() == pytest.approx(expected)
    assert float(plan.penalty()) == pytest.approx(sum(expected.values()))
    assert "heads.left.kernel" in str(plan)
    assert str(plan).endswith(f"3 of 11 parameters penalized, penalty {sum(expected.values()):.4g}")


def _at(net: Net, name: str) -> tf.Variable:
    return {
        "blocks.0.kernel": net.blocks[0].kernel,
        "blocks.1.kernel": net.blocks[1].kernel,
        "heads.left.kernel": net.heads["left"].kernel,
    }[name]


def test_types_and_roles_of_a_module() -> None:
    plan = regularize(
        Net(), {of_type(Dense) & biases: L1(0.1), norms: L2(0.2), embeddings: L2(0.3)}
    )
    assert set(penalized(plan)) == {
        "embedding",
        "norm.gain",
        "blocks.0.bias",
        "blocks.1.bias",
        "heads.left.bias",
        "heads.right.bias",
    }
    corrected = regularize(Net(), L2(0.1), roles={"embedding": "kernel"})
    assert "embedding" in penalized(corrected)


NAMES = [
    ("dense/kernel", (3, 2), "kernel"),
    ("layer1/weights", (3, 2), "kernel"),
    ("w", (3, 2), "kernel"),
    ("dense/bias", (2,), "bias"),
    ("layer1/biases", (2,), "bias"),
    ("rnn/b", (2,), "bias"),
    ("BatchNorm/gamma", (2,), "norm"),
    ("batch_normalization_1/beta", (2,), "norm"),
    ("embedding_2/embeddings", (5, 2), "embedding"),
    ("embedding/dense/kernel", (5, 2), "kernel"),
    ("word_embed", (5, 2), "embedding"),
    ("conv1/kernel", (3, 3, 2, 4), "kernel"),
    ("scale", (), "other"),
    ("prelu/alpha", (4,), "other"),
]


@pytest.mark.parametrize(("name", "shape", "role"), NAMES)
def test_the_role_of_a_variable(name: str, shape: tuple[int, ...], role: str) -> None:
    with tf.Graph().as_default():
        v1.get_variable(name, shape=shape)
        assert roles(regularize(v1.trainable_variables(), {everything: L2(0.1)})) == {
            name.replace("/", "."): role
        }


AXES = [
    ("dense/kernel", (3, 2), 1, 0),
    ("conv1/kernel", (3, 3, 2, 4), 3, 2),
    ("conv1d/kernel", (3, 2, 4), 2, 1),
    ("conv2d_transpose/kernel", (3, 3, 4, 2), 2, 3),
    ("word_embed", (5, 2), 1, 0),
]


@pytest.mark.parametrize(("name", "shape", "outputs", "inputs"), AXES)
def test_the_words_of_groups_become_axes(
    name: str, shape: tuple[int, ...], outputs: int, inputs: int
) -> None:
    w = variable(name, *shape)
    for word, axis in (("outputs", outputs), ("inputs", inputs)):
        plan = regularize([w], {everything: GroupLasso(0.1, groups=word)})
        assert float(plan.penalty()) == pytest.approx(float(GroupLasso(0.1, groups=axis)(w)))


@pytest.mark.parametrize(
    ("name", "shape", "word"),
    [
        ("depthwise_conv2d/kernel", (3, 3, 2, 1), "outputs"),
        ("attention/query", (4, 2, 2), "inputs"),
    ],
)
def test_words_without_an_axis_are_refused(name: str, shape: tuple[int, ...], word: str) -> None:
    with pytest.raises(GroupsError, match=f"no single axis holds the {word}"):
        regularize([variable(name, *shape)], {everything: GroupLasso(0.1, groups=word)})


def test_variables_by_name() -> None:
    made = [variable("enc/kernel", 3, 2), variable("enc2/kernel", 3, 2), variable("enc/bias", 2)]
    plan = regularize(made, {"enc": L1(0.1), "enc/bias": L2(0.2)})
    assert penalized(plan) == {"enc.kernel": L1(0.1), "enc.bias": L2(0.2)}
    twice = regularize([variable("w", 2, 2), variable("w", 2, 2)], {"w_1": L2(0.1)})
    assert penalized(twice) == {"w_1": L2(0.1)}
    w = variable("w", 2, 2)
    assert len(regularize([w, w], L2(0.1)).rows) == 1


def test_the_gradient_under_a_tape_and_in_a_function() -> None:
    net = Net()
    plan = regularize(net, {kernels: L1(0.3), "heads.left.bias": L2(0.5)})
    sources = [net.blocks[0].kernel, net.heads["left"].bias, net.norm.gain]

    def gradients() -> Any:
        with tf.GradientTape() as tape:
            value = plan.penalty()
        return tape.gradient(value, sources, unconnected_gradients="zero")

    for found in (gradients(), tf.function(gradients)()):
        np.testing.assert_allclose(found[0], 0.3 * np.sign(sources[0]), rtol=1e-6)
        np.testing.assert_allclose(found[1], 1.0 * sources[1].numpy(), rtol=1e-6)
        np.testing.assert_array_equal(found[2], np.zeros(4))


def test_a_function_sees_the_weights_as_they_are_when_it_runs() -> None:
    w = variable("w", 3, 2)
    plan = regularize([w], L2(0.5))
    traced = tf.function(plan.penalty)
    for _ in range(2):
        w.assign_add(tf.ones((3, 2)))
        assert float(traced()) == pytest.approx(0.5 * float((w.numpy() ** 2).sum()))
    assert traced.experimental_get_tracing_count() == 1


def test_dtypes() -> None:
    narrow = tf.Variable(np.full(3000, 10.0, np.float16), name="narrow")
    double = tf.Variable(np.ones((2, 2)), name="double")
    plan = regularize([narrow, double], {everything: L2(1.0)})
    assert plan.penalty().dtype == tf.float64
    assert float(plan.penalty()) == pytest.approx(300_004)
    assert regularize([narrow], {everything: L2(1.0)}).penalty().dtype == tf.float32
    assert float(regularize([narrow], {}).penalty()) == 0.0


def test_frozen_variables() -> None:
    plan = regularize(
        [variable("a/kernel", 2, 2), variable("b/kernel", 2, 2, trainable=False)], L2(0.1)
    )
    assert list(plan.breakdown()) == ["a.kernel"]
    assert plan.rows[1].note == "skipped: frozen (L2(0.1) when trainable)"


def test_a_graph_and_its_session() -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable("net/w", initializer=np.ones((2, 3), np.float32))
        plan = regularize(v1.trainable_variables(), L2(0.5))
        penalty = plan.penalty()
        session.run(v1.global_variables_initializer())
        assert session.run(penalty) == 3.0
        assert plan.breakdown() == {"net.w": 3.0}
        assert "penalty 3" in str(plan)
        operations = len(session.graph.get_operations())
        assert plan.breakdown() == {"net.w": 3.0}
        assert len(session.graph.get_operations()) == operations
    with tf.Graph().as_default():
        v1.get_variable("net/w", initializer=np.ones((2, 3), np.float32))
        unseen = regularize(v1.trainable_variables(), L2(0.5))
        assert str(unseen).endswith("1 of 1 parameters penalized")
        with pytest.raises(ModelError, match="there is no session; call it inside"):
            unseen.breakdown()
        with pytest.raises(ModelError, match=r"its session alone; call plan\.breakdown\(\) ins"):
            log(unseen)


def test_its_numbers_for_a_logger() -> None:
    w = tf.Variable([[0.0, 2.0], [0.0, -1.0]], name="kernel")
    rules = {"kernel": L1(0.5) * warmup(4) + GroupLasso(1.0, size_weighted=False)}
    plan = regularize([w], rules)
    found = log(plan, at=2)
    expected = {"penalty": 0.75 + 5**0.5, "penalties/kernel": 0.75 + 5**0.5}
    assert found == pytest.approx({**expected, "zeros": 0.5, "groups/kernel": 1.0})


@pytest.mark.parametrize("count", [1, 3])
def test_a_partitioned_variable_is_one_parameter(count: int) -> None:
    w = np.random.default_rng(0).normal(size=(5, 4))
    r = GroupLasso(0.3, groups="outputs")
    with tf.Graph().as_default(), v1.Session() as session:
        whole = v1.get_variable(
            "w", initializer=tf.constant(w), partitioner=v1.fixed_size_partitioner(count)
        )
        v1.get_variable("other/kernel", initializer=w)
        for given in (v1.trainable_variables()[::-1], [whole]):
            plan = regularize(given, r)
            (row,) = [row for row in plan.rows if row.name == "w"]
            assert row.shape == (5, 4)
            assert row.note == ("3 shards" if count == 3 else "")
            session.run(v1.global_variables_initializer())
            assert plan.breakdown()["w"] == pytest.approx(float(GroupLasso(0.3, groups=1)(w)))


def test_a_variable_that_was_replaced() -> None:
    net = Dense(3, 2)
    plan = regularize(net, L2(0.5))
    net.kernel = variable("other", 3, 2)
    for use in (plan.penalty, plan.breakdown):
        with pytest.raises(ModelError, match="'kernel' of this Dense was replaced after the plan"):
            use()


def test_a_variable_that_came_later() -> None:
    net = Dense(3, 2)
    plan = regularize(net, L2(0.5))
    before = float(plan.penalty())
    net.more = {"kernel": variable("other", 3, 2), "count": tf.Variable(0, trainable=False)}
    with pytest.warns(
        NeverAppliedWarning, match=r"'more\.kernel' came to the Dense after it was pl"
    ):
        assert float(plan.penalty()) == before
    assert float(plan.penalty()) == before  # told once
    net.count = tf.Variable(0, trainable=False)
    plan.penalty()
    assert "more" not in str(plan)


def test_printing_never_fails() -> None:
    with tf.Graph().as_default() as graph, v1.Session():
        v1.get_variable("net/w", initializer=np.ones((2, 3), np.float32))
        plan = regularize(v1.trainable_variables(), L2(0.5))
        assert "net.w" in str(plan)  # not initialized
        again = regularize(v1.trainable_variables(), L2(0.5))
        graph.finalize()
        assert "net.w" in str(again)


def test_one_weight_by_two_ways_is_one_row() -> None:
    class Both(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = keras.layers.Dense(2)
            self.layer.build((None, 3))
            self.own = self.layer.kernel.value

    plan = regularize(Both(), L2(0.5))
    (row,) = [row for row in plan.rows if row.regularizer is not None]
    assert (row.name, row.aliases) == ("layer.kernel", ("own",))


class Hidden(tf.Module):
    """Holds a variable where TensorFlow finds it and a name does not."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = variable("seen", 2, 2)
        self.unseen = collections.deque([variable("unseen", 2, 2)])

    @property
    def trainable_variables(self) -> Any:
        return (self.seen, *self.unseen)


def some_shards() -> Any:
    with tf.Graph().as_default():
        cut = v1.fixed_size_partitioner(3)
        whole = v1.get_variable("w", initializer=tf.ones((6, 2)), partitioner=cut)
        return regularize(list(whole)[1:], L2(0.1))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: regularize(Hidden(), L2(0.1)), ModelError, "holds 'unseen:0' where it cannot be"),
        (some_shards, ModelError, "'w' is partitioned, and only some of its shards were given"),
        (lambda: regularize(3), ModelError, "got a int; pass a list of variables"),
        (lambda: regularize([3]), ModelError, "got a int; pass a list of variables"),
        (lambda: regularize(tf.constant(1.0)), ModelError, "got a EagerTensor; pass a list"),
        (lambda: regularize([]), ModelError, "this list has no variables"),
        (lambda: regularize(tf.Module()), ModelError, "this Module has no variables"),
        (
            lambda: regularize([variable("enc/kernel", 2, 2)], {"encoder": L2(0.1)}),
            NoMatchError,
            "the nearest names are 'enc",
        ),
        (
            lambda: regularize([tf.Variable([1, 2], name="count")], {everything: L2(0.1)}),
            ArrayError,
            "'count' of tf.int32; expected a real floating-point variable",
        ),
    ],
)
def test_what_is_refused(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"(?i){message}"):
        make()


def test_a_plan_is_pickled_with_its_module() -> None:
    net = Net()
    plan = regularize(net, L2(0.1))
    plan.penalty()
    other, its = pickle.loads(pickle.dumps((net, plan)))
    assert float(its.penalty()) == pytest.approx(float(plan.penalty()))
    for each in other.trainable_variables:
        each.assign_add(tf.ones_like(each))
    assert float(its.penalty()) != pytest.approx(float(plan.penalty()))  # one with its module
    assert str(its) != str(plan)
