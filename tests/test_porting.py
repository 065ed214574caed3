"""What the porting guide, docs/porting.md, and docs/units.md claim is so."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_slim

from penalize import (
    L2,
    AppliedTwiceError,
    AuditError,
    Orthogonal,
    PenaltyError,
    PenaltyOfPenaltyWarning,
    Regularizer,
    everything,
    units,
)
from penalize.keras import from_keras
from penalize.tensorflow import audit, contrib, regularize, regularized
from penalize.torch import tf1

v1 = tf.compat.v1
KEY = v1.GraphKeys.REGULARIZATION_LOSSES
GUIDE = Path(__file__).parent.parent / "docs" / "porting.md"
RIGHT = "0.44000 -1.68000 1.70000"


@cache
def guide() -> str:
    return GUIDE.read_text(encoding="utf-8")


def sections(mark: str) -> dict[str, str]:
    """Heading → what stands below it, up to the next one of that rank or above."""
    found = re.split(rf"^{mark} (.*)$", guide(), flags=re.MULTILINE)[1:]
    upper = re.compile(rf"^#{{1,{len(mark)}}} ", re.MULTILINE)
    return {h: upper.split(body)[0] for h, body in zip(found[::2], found[1::2], strict=True)}


@cache
def data() -> dict[str, Any]:
    """What the guide's first block defines: x, y, kernel, bias."""
    namespace: dict[str, Any] = {}
    exec(re.search(r"^```python\n(.*?)^```$", guide(), re.DOTALL | re.MULTILINE)[1], namespace)  # type: ignore[index]
    return namespace


def test_every_port_takes_the_same_step() -> None:
    ports = sections("###")
    for name in ("TensorFlow 2", "Keras 3", "PyTorch", "PyTorch, with TensorFlow 1's words", "JAX"):
        assert RIGHT in ports[name], name
    assert ports["What is right"].count(RIGHT) == 3
    for name in ("A: `0.01 * sum(...)`", "C: nothing but `minimize`"):
        assert RIGHT not in ports[name], name


def test_the_numbers_on_paper() -> None:
    x, y, kernel, bias = (data()[name].astype(float) for name in ("x", "y", "kernel", "bias"))
    error = 2 * (x @ kernel + bias - y) / len(x)
    np.testing.assert_array_equal(x.T @ error, [[5.5], [-3]])
    np.testing.assert_array_equal(error.sum(0), [3])
    np.testing.assert_allclose(kernel - 0.1 * (x.T @ error + 0.1 * kernel), [[0.44], [-1.68]])
    for numbers in (
        "5.5, −3 | 3 |",
        "0.1, −0.2 |",
        "**0.44, −1.68** | **1.7**",
        "0.45, −1.7 | 1.7",
    ):
        assert numbers in guide()


# --- what the answers do, numerically --------------------------------------------------------


@contextmanager
def graph() -> Iterator[Callable[[Any], Any]]:
    """A graph of TensorFlow 1; gives what evaluates in it."""
    with tf.Graph().as_default(), v1.Session() as session:

        def run(tensors: Any) -> Any:
            session.run(v1.global_variables_initializer())
            return session.run(tensors)

        yield run


def model(kernels_only: Any = None, all_of: Any = None) -> tuple[Any, list[Any]]:
    """Two layers: the data loss, and kernel and bias of each."""
    random = np.random.default_rng(0)
    out, variables = data()["x"].astype(float), []
    for i, (rows, columns) in enumerate([(2, 3), (3, 1)]):
        with v1.variable_scope(f"layer{i}", regularizer=all_of):
            w = v1.get_variable(
                "kernel", initializer=random.normal(size=(rows, columns)), regularizer=kernels_only
            )
            b = v1.get_variable("bias", initializer=random.normal(size=columns))
        out = tf.tanh(tf.matmul(out, w) + b)
        variables += [w, b]
    return tf.reduce_mean((out - data()["y"]) ** 2), variables


def test_answer_a_acts_with_a_hundredth_and_on_biases() -> None:
    with graph() as run:
        loss, variables = model(all_of=contrib.layers.l2_regularizer(0.1))
        collected = v1.get_collection(KEY)
        answer = loss + 0.01 * sum(collected)
        added = run(tf.gradients(answer - loss, variables))
        for gradient, w in zip(added, run(variables), strict=True):
            np.testing.assert_allclose(gradient, 0.01 * 0.1 * w, rtol=1e-6)
        what_acted = regularize(variables, {everything: L2.from_half(0.01 * 0.1)}).penalty()
        for gradient, same in zip(added, run(tf.gradients(what_acted, variables)), strict=True):
            np.testing.assert_allclose(gradient, same, rtol=1e-6)
        assert [row.factor for row in audit(answer)] == pytest.approx([0.01] * 4)
        assert [row.name for row in audit(answer)] == [
            f"layer{i}/{name}" for i in (0, 1) for name in ("kernel", "bias")
        ]
        with pytest.raises(AuditError):
            audit(answer, strict=True)
        with pytest.raises(AppliedTwiceError, match=r"strength multiplied again, by 0\.01"):
            regularized(v1.train.GradientDescentOptimizer(0.1)).minimize(answer)


def test_answer_b_penalizes_the_squares_of_penalties() -> None:
    regularizer = contrib.layers.l2_regularizer(scale=0.1)
    with graph() as run:
        loss, variables = model(kernels_only=regularizer)
        with pytest.warns(PenaltyOfPenaltyWarning):
            extra = contrib.layers.apply_regularization(regularizer, v1.get_collection(KEY))
        kernels = run(variables[::2])
        penalties = [0.1 * 0.5 * (w**2).sum() for w in kernels]
        assert run(extra) == pytest.approx(0.5 * 0.1 * sum(p**2 for p in penalties))
        added = run(tf.gradients(extra, variables[::2]))
        for gradient, w, p in zip(added, kernels, penalties, strict=True):
            np.testing.assert_allclose(gradient, 0.1 * p * (0.1 * w), rtol=1e-6)
        # The sum stands in the collection too, beside what it was made of.
        assert len(v1.get_collection(KEY)) == len(kernels) + 1
        whole = run(v1.losses.get_regularization_loss())
        assert whole == pytest.approx(sum(penalties) + run(extra))
        with pytest.raises(AppliedTwiceError, match="a penalty of a penalty"):
            regularized(v1.train.GradientDescentOptimizer(0.1)).minimize(loss + extra)


def test_the_declared_penalty_is_forty_times_that_of_answer_b() -> None:
    penalty = 0.1 * 0.5 * float((data()["kernel"] ** 2).sum())
    assert (penalty, 1 / (0.1 * penalty)) == pytest.approx((0.25, 40))
    assert 0.1 * 0.5 * penalty**2 == pytest.approx(0.003, abs=2e-4)


def test_weights_in_the_collection_break_what_reads_it() -> None:
    with graph():
        v1.add_to_collection(KEY, tf.Variable(data()["kernel"]))
        assert v1.losses.get_regularization_loss().shape == (2, 1)  # no scalar: the weights
        loss = tf.constant(0.0) * tf.reduce_sum(v1.trainable_variables()[0])
        with pytest.raises(PenaltyError, match="as they are"):
            regularized(v1.train.GradientDescentOptimizer(0.1)).minimize(loss)
        v1.add_to_collection(KEY, tf.Variable(np.zeros(3, "float32")))
        with pytest.raises(ValueError, match="Shapes must be equal rank"):
            v1.losses.get_regularization_loss()


def test_minimize_never_reads_the_collection() -> None:
    optimizer = v1.train.GradientDescentOptimizer(0.1)
    with graph() as run:
        loss, variables = model(kernels_only=contrib.layers.l2_regularizer(0.1))
        naive = [gradient for gradient, _ in optimizer.compute_gradients(loss)]
        for found, expected in zip(*run([naive, tf.gradients(loss, variables)]), strict=True):
            np.testing.assert_array_equal(found, expected)
        ours = [gradient for gradient, _ in regularized(optimizer).compute_gradients(loss)]
        pairs = zip(*run([naive, ours, variables]), strict=True)
        for i, (without, found, w) in enumerate(pairs):
            np.testing.assert_allclose(found, without + (i % 2 == 0) * 0.1 * w, rtol=1e-6)


# --- the tables of units and of words --------------------------------------------------------


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (tf_slim.l2_regularizer(0.25), L2.from_half(0.25)),
        (
            tf_slim.l2_regularizer(0.25),
            units.convert("tf.contrib.layers.l2_regularizer", scale=0.25),
        ),
        (lambda w: 0.25 * tf.nn.l2_loss(w), units.convert("tf.nn.l2_loss", scale=0.25)),
        (
            tf_slim.l1_regularizer(0.25),
            units.convert("tf.contrib.layers.l1_regularizer", scale=0.25),
        ),
        (
            tf_slim.l1_l2_regularizer(0.25, 0.5),
            units.convert("tf.contrib.layers.l1_l2_regularizer", scale_l1=0.25, scale_l2=0.5),
        ),
        (keras.regularizers.L1(0.25), units.convert("keras.L1", l1=0.25)),
        (keras.regularizers.L2(0.25), units.convert("keras.L2", l2=0.25)),
        (keras.regularizers.L1L2(0.25, 0.5), units.convert("keras.L1L2", l1=0.25, l2=0.5)),
        (
            keras.regularizers.OrthogonalRegularizer(0.25, "columns"),
            units.convert("keras.OrthogonalRegularizer", factor=0.25, mode="columns"),
        ),
    ],
)
def test_the_units(theirs: Any, ours: Regularizer) -> None:
    w = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    found = theirs(keras.ops.convert_to_tensor(w) if is_of_keras(theirs) else tf.constant(w))
    assert float(found) == pytest.approx(float(ours(w)), rel=1e-5)
    if is_of_keras(theirs):
        assert from_keras(theirs) == ours


def is_of_keras(regularizer: Any) -> bool:
    return isinstance(regularizer, keras.Regularizer)


@pytest.mark.parametrize("mode", ["rows", "columns"])
def test_orthogonal_of_a_transposed_kernel(mode: str) -> None:
    w = np.random.default_rng(0).normal(size=(4, 3))
    other = {"rows": "columns", "columns": "rows"}[mode]
    assert Orthogonal(0.25, mode)(w) == pytest.approx(Orthogonal(0.25, other)(w.T))


def test_the_words_are_there() -> None:
    """What the table says is "the same" on either side, or names there, exists there."""
    table = sections("##")["TensorFlow 1's words"]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| `")]
    assert len(rows) > 15
    for word, now, torch in rows:
        for cell, module in ((now, v1), (torch, tf1)):
            text = f"{word} {cell}" if cell.startswith("the same") else cell
            for name in re.findall(r"\btf\.([\w.]*\w)", text):
                value: Any = module
                for part in name.split("."):
                    value = getattr(value, part)
        for name in re.findall(r"`(l\w+_regularizer|sum_regularizer)`", word):
            assert hasattr(contrib.layers, name)
            assert hasattr(tf1.contrib.layers, name)
    for gone in ("contrib", "layers.dense"):
        with pytest.raises(AttributeError):
            getattr(v1 if gone == "contrib" else v1.layers, gone.rpartition(".")[2])
