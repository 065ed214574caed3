"""From a TensorFlow 1 program and its checkpoint to PyTorch: it goes on as it would have."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow
import torch
from torch import Tensor

from penalize import CheckpointError, MissingPackageError
from penalize.torch import tf1

tf = tensorflow.compat.v1

RATE = 2.0**-4  # TensorFlow rounds it to float32
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(20, 6)), RNG.normal(size=(20, 2))


def network(v: Any, x: Any) -> Any:
    """The model, written once: two dense layers with biases, penalties from two places."""
    with v.variable_scope("net", regularizer=v.l2(0.03), reuse=v.AUTO_REUSE, dtype=v.float64):
        with v.variable_scope("hidden"):
            kernel = v.get_variable("kernel", [6, 5])
            bias = v.get_variable("bias", [5], initializer=v.zeros, regularizer=v.no_regularizer)
            x = v.tanh(v.matmul(x, kernel) + bias)
        with v.variable_scope("head"):
            kernel = v.get_variable("kernel", [5, 2], regularizer=v.l1(0.02))
            bias = v.get_variable("bias", [2], initializer=v.zeros)
            return v.matmul(x, kernel) + bias


ON_TENSORFLOW = SimpleNamespace(
    variable_scope=tf.variable_scope,
    get_variable=tf.get_variable,
    no_regularizer=tf.no_regularizer,
    AUTO_REUSE=tf.AUTO_REUSE,
    l1=lambda s: lambda w: tf.constant(s, tf.float64) * tf.reduce_sum(tf.abs(w)),
    l2=lambda s: lambda w: tf.constant(s, tf.float64) * tf.nn.l2_loss(w),
    zeros=tf.zeros_initializer(),
    float64=tf.float64,
    matmul=tf.matmul,
    tanh=tf.tanh,
)

ON_TORCH = SimpleNamespace(
    variable_scope=tf1.variable_scope,
    get_variable=tf1.get_variable,
    no_regularizer=tf1.no_regularizer,
    AUTO_REUSE=tf1.AUTO_REUSE,
    l1=tf1.contrib.layers.l1_regularizer,
    l2=tf1.contrib.layers.l2_regularizer,
    zeros=torch.zeros,
    float64=torch.float64,
    matmul=torch.matmul,
    tanh=torch.tanh,
)


class Step(SimpleNamespace):
    data_loss: float
    penalty: float
    gradients: dict[str, Any]


def train_on_tensorflow(path: str) -> list[Step]:
    """Ten steps, a checkpoint, and five further steps, which are given back."""
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(1)
        data_loss = tf.reduce_mean(tf.square(network(ON_TENSORFLOW, tf.constant(X)) - Y))
        penalty = tf.losses.get_regularization_loss()
        optimizer = tf.train.GradientDescentOptimizer(RATE)
        pairs = optimizer.compute_gradients(data_loss + penalty)
        count = tf.train.get_or_create_global_step()
        update = optimizer.apply_gradients(pairs, global_step=count)
        slots = tf.train.AdamOptimizer().minimize(data_loss)  # makes slots, is never run
        session.run(tf.global_variables_initializer())
        for _ in range(10):
            session.run(update)
        tf.train.Saver().save(session, path)
        del slots
        steps = []
        for _ in range(5):
            gradients = {v.op.name: g for g, v in pairs}
            numbers = session.run([data_loss, penalty, gradients])
            steps.append(Step(data_loss=numbers[0], penalty=numbers[1], gradients=numbers[2]))
            session.run(update)
        return steps


def test_a_tensorflow_program_goes_on_in_pytorch(tmp_path: Path) -> None:
    path = str(tmp_path / "model")
    expected = train_on_tensorflow(path)
    x, y = torch.tensor(X), torch.tensor(Y)
    with tf1.VariableStore() as store:
        network(ON_TORCH, x)
        optimizer = torch.optim.SGD(store.parameters(), lr=RATE)
        ignored = tf1.load_tf1_checkpoint(store, path)
        for step in expected:
            optimizer.zero_grad()
            data_loss = (network(ON_TORCH, x) - y).square().mean()
            penalty = tf1.losses.get_regularization_loss()
            (data_loss + penalty).backward()
            assert data_loss.item() == pytest.approx(step.data_loss, rel=1e-12)
            assert penalty.item() == pytest.approx(step.penalty, rel=1e-12)
            assert step.penalty > 0.01
            gradients = {name: p.grad for name, p in store.named_parameters()}
            assert gradients.keys() == step.gradients.keys()
            for name, gradient in gradients.items():
                assert gradient is not None
                np.testing.assert_allclose(gradient.numpy(), step.gradients[name], atol=1e-12)
            optimizer.step()
    assert {"global_step", "beta1_power", "net/head/kernel/Adam"} < set(ignored)
    assert not set(ignored) & set(gradients)


# --- what can be wrong ----------------------------------------------------------------------


@pytest.fixture
def store() -> Iterator[tf1.VariableStore]:
    with tf1.VariableStore() as store:
        yield store


def save(path: Path, **values: Any) -> str:
    """A checkpoint with these variables; ``__`` stands for ``/``."""
    with tf.Graph().as_default(), tf.Session() as session:
        for name, value in values.items():
            tf.get_variable(name.replace("__", "/"), initializer=value)
        session.run(tf.global_variables_initializer())
        saved: str = tf.train.Saver().save(session, str(path / "model"))
        return saved


def snapshot(store: tf1.VariableStore) -> dict[str, Tensor]:
    return copy.deepcopy(store.state_dict())


def test_the_directory_of_the_latest_checkpoint(tmp_path: Path, store: tf1.VariableStore) -> None:
    save(tmp_path, w=np.arange(3.0, dtype=np.float32), step=np.int64(7))
    w = tf1.get_variable("w", [3])
    step = tf1.get_variable("step", [], dtype=torch.int64, trainable=False)
    assert tf1.load_tf1_checkpoint(store, tmp_path) == []
    assert w.tolist() == [0, 1, 2]
    assert step.item() == 7


def test_a_variable_in_shards_is_loaded_whole(tmp_path: Path, store: tf1.VariableStore) -> None:
    value = np.arange(15.0, dtype=np.float32).reshape(5, 3)
    with tf.Graph().as_default(), tf.Session() as session:
        cut = tf.fixed_size_partitioner(3)
        tf.get_variable("s/w", initializer=tf.constant(value), partitioner=cut)
        session.run(tf.global_variables_initializer())
        path = tf.train.Saver().save(session, str(tmp_path / "model"))
    w = tf1.get_variable("s/w", [5, 3], partitioner=tf1.fixed_size_partitioner(3))
    assert tf1.load_tf1_checkpoint(store, path) == []
    assert w.tolist() == value.tolist()


def test_all_that_does_not_fit_is_listed_and_nothing_loaded(
    tmp_path: Path, store: tf1.VariableStore
) -> None:
    path = save(
        tmp_path,
        net__kernel=np.ones([2, 3], np.float32),
        net__bias=np.ones([3], np.float32),
        good=np.ones([2], np.float32),
        wide=np.ones([2], np.float64),
        count=np.ones([2], np.float32),
    )
    for name, shape in {"net/kernle": [2, 3], "net/bias": [4], "good": [2], "zzzzzz": []}.items():
        tf1.get_variable(name, shape, initializer=torch.zeros)
    tf1.get_variable("wide", [2], initializer=torch.zeros)
    tf1.get_variable("count", [2], dtype=torch.int32)
    before = snapshot(store)
    with pytest.raises(CheckpointError) as caught:
        tf1.load_tf1_checkpoint(store, path)
    assert str(caught.value) == (
        f"The checkpoint {path!r} cannot be loaded, and nothing was: "
        "'net/kernle' is not in it (did you mean 'net/kernel'?); "
        "'net/bias' has shape (3,) in it, not (4,); "
        "'zzzzzz' is not in it; "
        "'wide' is of float64 in it, not of torch.float32; cast=True converts it; "
        "'count' is of float32 in it, not of torch.int32."
    )
    assert all(torch.equal(value, before[name]) for name, value in store.state_dict().items())


def test_a_cast_has_to_be_asked_for(tmp_path: Path, store: tf1.VariableStore) -> None:
    path = save(tmp_path, w=np.array([1 / 3, 2.0]))
    w = tf1.get_variable("w", [2])
    with pytest.raises(CheckpointError, match="cast=True converts it"):
        tf1.load_tf1_checkpoint(store, path)
    tf1.load_tf1_checkpoint(store, path, cast=True)
    assert w.tolist() == np.array([1 / 3, 2.0], np.float32).tolist()


def test_bfloat16(tmp_path: Path, store: tf1.VariableStore) -> None:
    with tf.Graph().as_default():
        value = tf.constant([1.5, -2.0], tf.bfloat16)
        tf.get_variable("w", initializer=value)
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            path = tf.train.Saver().save(session, str(tmp_path / "model"))
    w = tf1.get_variable("w", [2], dtype=torch.bfloat16)
    tf1.load_tf1_checkpoint(store, path)
    assert w.tolist() == [1.5, -2.0]


def test_an_empty_store(tmp_path: Path, store: tf1.VariableStore) -> None:
    path = save(tmp_path, w=np.ones(2, np.float32))
    with pytest.raises(CheckpointError, match=r"no variables yet; run the model's code once"):
        tf1.load_tf1_checkpoint(store, path)


def test_no_checkpoint(tmp_path: Path, store: tf1.VariableStore) -> None:
    tf1.get_variable("w", [2])
    with pytest.raises(CheckpointError, match="a directory without a checkpoint; pass what Saver"):
        tf1.load_tf1_checkpoint(store, tmp_path)
    (tmp_path / "text").write_text("no checkpoint")
    for name in ("absent", "text"):
        with pytest.raises(
            CheckpointError, match=rf"{name}' cannot be loaded.*this is no checkpoi"
        ):
            tf1.load_tf1_checkpoint(store, tmp_path / name)


def test_without_tensorflow(monkeypatch: pytest.MonkeyPatch, store: tf1.VariableStore) -> None:
    tf1.get_variable("w", [2])
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(
        MissingPackageError, match="Reading a TensorFlow 1 checkpoint needs tensorf"
    ):
        tf1.load_tf1_checkpoint(store, "model")
    assert issubclass(MissingPackageError, ImportError)


def test_no_store() -> None:
    with pytest.raises(CheckpointError, match="3 is no store to load it into; pass a"):
        tf1.load_tf1_checkpoint(3, "model")


def test_a_damaged_checkpoint(tmp_path: Path, store: tf1.VariableStore) -> None:
    path = save(tmp_path, w=np.ones(2, np.float32), v=np.ones(1000, np.float32))
    (data,) = tmp_path.glob("*.data-*")
    data.write_bytes(data.read_bytes()[:100])
    w, v = tf1.get_variable("w", [2]), tf1.get_variable("v", [1000])
    before = w.tolist(), v.tolist()
    with pytest.raises(CheckpointError, match=r"cannot be read .*damaged or incomplete"):
        tf1.load_tf1_checkpoint(store, path)
    assert (w.tolist(), v.tolist()) == before
