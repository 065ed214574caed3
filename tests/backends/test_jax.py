"""What is particular to JAX: tracing, transformations, and the derivative of |w| at 0."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, Case
from frameworks import FRAMEWORKS

from penalize import L1, L2, ArrayError, GroupLasso

all_cases = pytest.mark.parametrize("case", CASES, ids=str)


def array(case: Case) -> jax.Array:
    w = np.random.default_rng(0).normal(size=case.shape)
    w[0] = 0.0
    return FRAMEWORKS["jax"].make(w, "float64")


@all_cases
def test_under_jit(case: Case) -> None:
    w, r = array(case), case.regularizer
    np.testing.assert_allclose(jax.jit(r)(w), r(w), rtol=1e-14)
    np.testing.assert_allclose(jax.jit(r.gradient)(w), r.gradient(w), rtol=1e-14)
    if case.has_prox:
        for step in (jnp.asarray(0.3), 0.3 * jnp.exp(w)):
            np.testing.assert_allclose(jax.jit(r.prox)(w, step), r.prox(w, step), rtol=1e-12)


@all_cases
def test_under_vmap(case: Case) -> None:
    w, r = array(case), case.regularizer
    stacked = jnp.stack([w, 2 * w, jnp.zeros_like(w)])
    one_by_one = jnp.stack([r.gradient(x) for x in stacked])
    np.testing.assert_allclose(jax.vmap(r.gradient)(stacked), one_by_one, rtol=1e-14)


@pytest.mark.parametrize("differentiate", [jax.grad, jax.jacfwd, jax.jacrev])
def test_zeros_are_not_pushed_away(differentiate: object) -> None:
    assert jax.grad(jnp.abs)(0.0) == 1  # naive
    gradient = differentiate(L1(2.0))(jnp.array([0.0, -3.0, 4.0]))
    np.testing.assert_array_equal(gradient, [0, -2, 2])


def test_a_group_of_zeros_has_a_finite_gradient() -> None:
    naive = jax.grad(lambda w: jnp.sqrt(jnp.sum(w**2)))(jnp.zeros(3))
    assert jnp.isnan(naive).all()
    w = jnp.array([[0.0, 0.0], [3.0, 4.0]])
    found = jax.grad(GroupLasso(1.0, groups=0, size_weighted=False))(w)
    np.testing.assert_allclose(found, [[0, 0], [0.6, 0.8]])


@pytest.mark.parametrize("dtype", ["int32", "complex64"])
def test_only_real_floating_arrays(dtype: str) -> None:
    with pytest.raises(ArrayError, match=f"a JAX array of dtype {dtype}"):
        L2(1.0)(jnp.ones(2, dtype=dtype))
