"""What is particular to JAX: tracing, transformations, and the derivative of |w| at 0."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import KINDS, Case
from frameworks import FRAMEWORKS

from penalize import L1, L2, ArrayError, GroupLasso

all_cases = pytest.mark.parametrize("case", KINDS, ids=str)


def array(case: Case) -> jax.Array:
    w = np.random.default_rng(0).normal(size=case.shape)
    w[0] = 0.0
    return FRAMEWORKS["jax"].make(w, "float64")


@all_cases
def test_under_jit(case: Case) -> None:
    w, r = array(case), case.regularizer
    np.testing.assert_allclose(jax.jit(r)(w), r(w), rtol=1e-13)
    if r.differentiable:
        np.testing.assert_allclose(jax.jit(r.gradient)(w), r.gradient(w), rtol=1e-12, atol=1e-13)
    if case.has_prox:
        for step in (jnp.asarray(0.3), 0.3 * jnp.exp(w))[: 1 + case.prox_per_element]:
            found = jax.jit(r.prox)(w, step)
            np.testing.assert_allclose(found, r.prox(w, step), rtol=1e-12, atol=1e-13)


@all_cases
def test_a_strength_that_is_traced_compiles_once(case: Case) -> None:
    """As schedules have it: value, gradient and prox of factor·Ω, for a factor that is an array."""
    w, r = array(case), case.regularizer

    @jax.jit
    def everything(factor: jax.Array) -> list[jax.Array]:
        scaled = r.scaled(factor)
        found = [scaled(w)]
        found += [scaled.gradient(w), scaled.pull(w)] if r.differentiable else []
        return found + ([scaled.prox(w, 0.3)] if case.has_prox else [])

    for factor in (0.5, 2.0):
        found, plain = everything(jnp.asarray(factor)), factor * r
        expected = [plain(w)]
        expected += [plain.gradient(w), plain.pull(w)] if r.differentiable else []
        expected += [plain.prox(w, 0.3)] if case.has_prox else []
        for f, e in zip(found, expected, strict=True):
            np.testing.assert_allclose(f, e, rtol=1e-12, atol=1e-13)
    assert everything._cache_size() == 1


@all_cases
def test_under_vmap(case: Case) -> None:
    w, r = array(case), case.regularizer
    stacked = jnp.stack([w, 2 * w, jnp.zeros_like(w)])
    functions = [r.gradient] if r.differentiable else []
    functions += [lambda x: r.prox(x, 0.3)] if case.has_prox else []
    for f in functions:
        one_by_one = jnp.stack([f(x) for x in stacked])
        np.testing.assert_allclose(jax.vmap(f)(stacked), one_by_one, rtol=1e-12, atol=1e-13)


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
