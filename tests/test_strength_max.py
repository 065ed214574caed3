"""``r.strength_max(g)``: the least factor at which nothing is left."""

import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from penalize import (
    L1,
    L1L2,
    L2,
    MCP,
    GroupLasso,
    NoStrengthMaxError,
    NuclearNorm,
    SparseGroupLasso,
    warmup,
)
from penalize.errors import ArrayError, NoStepError

SPARSE = [
    L1(0.5),
    L1L2(0.5, 3.0),
    L1(0.25) + L2(1.0) + L1(0.25),
    GroupLasso(0.5, groups=0),
    GroupLasso(0.5, groups=1, size_weighted=False),
    GroupLasso(2.0, groups=[[0, 5], [1, 2, 3], [4, *range(6, 12)]]),
    GroupLasso(0.5, groups=0) + L2(1.0),
    NuclearNorm(0.5, rows=0),
]
some = pytest.mark.parametrize("r", SPARSE, ids=repr)
gradients = arrays(np.float64, (3, 4), elements=st.floats(-10, 10).filter(lambda x: abs(x) > 1e-3))


@some
@given(g=gradients)
def test_from_it_on_nothing_is_left_and_below_it_something(r, g):
    """0 minimises ⟨g, w⟩ + ½‖w‖² + f·Ω exactly where it minimises loss + f·Ω."""
    f = float(r.strength_max(g))
    assert f > 0
    np.testing.assert_allclose(r.prox(-g, f * (1 + 1e-9)), 0.0, atol=1e-9)
    assert np.abs(r.prox(-g, f * (1 - 1e-6))).max() > 1e-12


@some
@pytest.mark.parametrize(
    "of", [torch.tensor, jnp.asarray, tf.constant], ids=["torch", "jax", "tensorflow"]
)
def test_it_is_the_same_on_every_framework(r, of):
    g = np.random.default_rng(0).normal(size=(3, 4))
    found = r.strength_max(of(g))
    assert type(found) is not float
    np.testing.assert_allclose(float(found), float(r.strength_max(g)), rtol=1e-12)


def test_of_strength_one_it_is_the_dual_norm():
    g = np.array([[3.0, -4.0], [0.0, 1.0]])
    assert L1(1.0).strength_max(g) == 4
    assert L1(2.0).strength_max(g) == 2
    assert GroupLasso(1.0, groups=0, size_weighted=False).strength_max(g) == 5
    np.testing.assert_allclose(GroupLasso(1.0, groups=0).strength_max(g), 5 / 2**0.5)
    top = np.linalg.norm(g, 2)
    np.testing.assert_allclose(NuclearNorm(1.0, rows=0).strength_max(g), top, rtol=1e-12)


@pytest.mark.parametrize(
    "r",
    [
        L2(1.0),
        L1L2(0.0, 1.0),
        L1(0.0),
        GroupLasso(0.0, groups=0),
        NuclearNorm(0.0, rows=0),
        MCP(1.0),
        SparseGroupLasso(1.0, groups=0),
        L1(1.0) + GroupLasso(1.0, groups=0),
    ],
    ids=repr,
)
def test_what_leaves_something_at_every_strength_says_so(r):
    with pytest.raises(
        NoStrengthMaxError, match=r"No strength at which .* leaves nothing is known"
    ):
        r.strength_max(np.ones((3, 4)))


def test_what_cannot_be_a_gradient_is_refused():
    with pytest.raises(ArrayError):
        L1(1.0).strength_max([1.0, 2.0])
    with pytest.raises(NoStepError):
        (L1(1.0) * warmup(10)).strength_max(np.ones(3))
