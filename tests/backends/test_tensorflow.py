"""What is particular to TensorFlow: graphs of TF 1 and TF 2, and its kinds of variables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from autograph import no_complaints
from cases import FEW, KINDS, Case
from frameworks import FRAMEWORKS

from penalize import (
    L1,
    L2,
    ArrayError,
    FusedLasso,
    GroupLasso,
    Orthogonal,
    Regularizer,
    Smoothness,
)
from penalize.backends import open_array

v1 = tf.compat.v1
all_cases = pytest.mark.parametrize("case", KINDS, ids=str)


def values(case: Case) -> np.ndarray:
    w = np.random.default_rng(0).normal(size=case.shape)
    w[0] = 0.0
    return w


@pytest.mark.parametrize("case", FEW, ids=str)
def test_under_tf_function(case: Case) -> None:
    w, r = FRAMEWORKS["tensorflow"].make(values(case), "float64"), case.regularizer
    with no_complaints():
        _check_under_tf_function(case, r, w)


def _check_under_tf_function(case: Case, r: Regularizer, w: Any) -> None:
    steps = (0.3, 0.3 * tf.exp(w))[: case.has_prox * (1 + case.prox_per_element)]

    def everything(w: Any) -> list[Any]:
        found = [r(w)] + ([r.gradient(w)] if r.differentiable else [])
        return found + [r.prox(w, step) for step in steps]

    for found, plain in zip(tf.function(everything)(w), everything(w), strict=True):
        np.testing.assert_allclose(found, plain, rtol=1e-12, atol=1e-13)


def shard_of(w: np.ndarray) -> Callable[..., Any]:
    """An initializer that gives each shard of a partitioned variable its part of w."""

    def initialize(shape: Any, dtype: Any = None, partition_info: Any = None) -> Any:
        offsets = partition_info.var_offset
        return tf.constant(w[tuple(slice(o, o + n) for o, n in zip(offsets, shape, strict=True))])

    return initialize


VARIABLES: dict[str, Callable[[np.ndarray], Any]] = {
    "resource": lambda w: v1.get_variable("w", initializer=w, use_resource=True),
    "reference": lambda w: v1.get_variable("w", initializer=w, use_resource=False),
    "partitioned": lambda w: v1.get_variable(
        "w",
        shape=w.shape,
        dtype=tf.float64,
        initializer=shard_of(w),
        partitioner=v1.fixed_size_partitioner(2),
    ),
    "tensor": tf.constant,
}


@pytest.mark.parametrize("kind", VARIABLES)
@all_cases
def test_in_a_tf1_graph(case: Case, kind: str) -> None:
    """A partitioned variable counts as the one array that it is."""
    w, r = values(case), case.regularizer
    with tf.Graph().as_default(), v1.Session() as session:
        array = VARIABLES[kind](w)
        acting = r.gradient if r.differentiable else lambda x: r.prox(x, 0.3)
        value, acted = r(array), acting(array)
        session.run(v1.global_variables_initializer())
        value, acted = session.run([value, acted])
    np.testing.assert_allclose(value, case.reference(w), rtol=1e-12)
    np.testing.assert_allclose(acted, acting(w), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("graph", [False, True])
def test_a_number_in_where_keeps_its_digits(graph: bool) -> None:
    """A cast alone would take it through float32."""
    x = tf.constant([1.0, -1.0], tf.float64)
    function = tf.function(choose) if graph else choose
    assert function(x).numpy().tolist() == [0.1, -1.0]


def choose(x: Any) -> Any:
    return open_array(x)[1].where(x > 0, 0.1, x)


def test_an_eager_variable() -> None:
    w = np.array([[3.0, -4.0], [0.0, 0.0]])
    variable = tf.Variable(w)
    with tf.GradientTape() as tape:
        value = GroupLasso(1.0, groups=0, size_weighted=False)(variable)
    assert float(value) == 5.0
    np.testing.assert_allclose(tape.gradient(value, variable), [[0.6, -0.8], [0, 0]])


@pytest.mark.parametrize("dtype", ["int32", "complex64"])
def test_only_real_floating_tensors(dtype: str) -> None:
    with pytest.raises(ArrayError, match=f"a TensorFlow tensor of tf.{dtype}"):
        L2(1.0)(tf.ones(2, dtype=dtype))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("use_resource", [True, False])
@pytest.mark.parametrize("shards", [1, 3])  # 2 in the test of all kinds
@pytest.mark.parametrize(
    "r",
    [
        GroupLasso(0.3, groups=0),
        GroupLasso(0.3, groups=1),
        L1(0.2) + GroupLasso(0.3, groups=()),
        Orthogonal(0.4),
        L1(0.2),
    ],
    ids=str,
)
def test_the_shards_of_a_variable_sum_to_the_whole(
    r: Regularizer, shards: int, use_resource: bool, axis: int
) -> None:
    """Both when TensorFlow asks for each at its creation, and when the collection is used."""
    w = np.random.default_rng(0).normal(size=(5, 4))
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable(
            "w",
            shape=w.shape,
            dtype=tf.float64,
            initializer=shard_of(w),
            partitioner=v1.fixed_size_partitioner(shards, axis=axis),
            regularizer=r,
            use_resource=use_resource,
            collections=[v1.GraphKeys.LOCAL_VARIABLES],
        )
        collected = v1.get_collection(v1.GraphKeys.REGULARIZATION_LOSSES)
        assert len(collected) == shards
        total = v1.losses.get_regularization_loss()
        variables = v1.trainable_variables()
        gradients = tf.gradients(total, variables)
        session.run(v1.local_variables_initializer())
        at_creation, now, found = session.run([collected, total, gradients])
    assert sum(at_creation) == pytest.approx(float(r(w)), rel=1e-12)
    assert now == pytest.approx(float(r(w)), rel=1e-12)
    np.testing.assert_allclose(np.concatenate(found, axis), r.gradient(w), rtol=1e-12, atol=1e-14)


def test_a_shard_without_the_others_stands_for_itself() -> None:
    """A variable may be called so and be none."""
    with tf.Graph().as_default(), v1.Session() as session:
        made = [tf.Variable(np.ones((2, 2)), name=f"lonely/part_{i}") for i in (0, 1, 3)]
        values = [GroupLasso(1.0, groups=0, size_weighted=False)(v) for v in made]
        session.run(v1.global_variables_initializer())
        assert session.run(values) == pytest.approx([2 * np.sqrt(2)] * 3)


def test_shards_that_cannot_be_found_are_refused() -> None:
    """Unless they are not needed. The entries that are made then must not be taken for right."""
    cut = v1.fixed_size_partitioner(2)
    for r, fine in ((L1(0.5), True), (GroupLasso(0.5, groups=1), False)):
        with tf.Graph().as_default():
            v1.get_variable(
                "w", initializer=tf.ones((4, 2)), partitioner=cut, regularizer=r, collections=["x"]
            )
            if fine:
                v1.losses.get_regularization_loss()
                continue
            with pytest.raises(ArrayError, match="a shard of 'w', whose other shards are"):
                v1.losses.get_regularization_loss()


def test_a_shard_whose_name_was_taken() -> None:
    w, r = np.random.default_rng(0).normal(size=(4, 2)), GroupLasso(0.5, groups=1)
    with tf.Graph().as_default(), v1.Session() as session:
        tf.constant(0.0, name="w/part_0")
        v1.get_variable(
            "w",
            initializer=tf.constant(w),
            partitioner=v1.fixed_size_partitioner(2),
            regularizer=r,
        )
        assert v1.trainable_variables()[0].name == "w/part_0_1:0"
        entries = v1.get_collection(v1.GraphKeys.REGULARIZATION_LOSSES)
        total = v1.losses.get_regularization_loss()
        session.run(v1.global_variables_initializer())
        assert session.run(total) == pytest.approx(float(r(w)))
        assert sum(session.run(entries)) == pytest.approx(float(r(w)))


@pytest.mark.parametrize("r", [FusedLasso(0.3), Smoothness(0.3)], ids=str)
def test_what_runs_on_the_host_is_not_compiled_by_xla(r: Regularizer) -> None:
    """A gap that the catalogue names; tf.function without XLA has none."""
    w = tf.constant(np.random.default_rng(0).normal(size=(2, 5)))
    assert tf.function(L1(0.3).prox, jit_compile=True)(w, 0.5).shape == w.shape
    with pytest.raises((tf.errors.InvalidArgumentError, tf.errors.UnimplementedError)):
        tf.function(r.prox, jit_compile=True)(w, 0.5)


@pytest.mark.parametrize("r", [L1(0.3), Orthogonal(0.3)], ids=str)
@pytest.mark.parametrize(
    "w",
    [
        tf.sparse.from_dense([[1.0, 0.0], [0.0, 2.0]]),
        tf.ragged.constant([[1.0, 2.0], [3.0]]),
        tf.TensorArray(tf.float32, 1),
    ],
    ids=lambda w: type(w).__name__,
)
def test_tensors_in_parts_are_refused(w: Any, r: Regularizer) -> None:
    for call in (r, r.gradient):
        with pytest.raises(ArrayError, match=f"a {type(w).__name__}; expected a dense tensor"):
            call(w)
    with pytest.raises(ArrayError, match="expected a dense tensor"):
        L1(0.3).prox(w, 0.5)
