"""What is particular to JAX: tracing, transformations, and the derivative of |w| at 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import FEW, Case
from frameworks import FRAMEWORKS, Jitted
from jax.extend.core import jaxprs_in_params

from penalize import L1, L2, ArrayError, GroupLasso, Regularizer, SpectralNorm
from penalize.backends import Array
from penalize.backends import jax as backend

all_cases = pytest.mark.parametrize("case", FEW, ids=str)


def array(case: Case) -> jax.Array:
    w = np.random.default_rng(0).normal(size=case.shape)
    w[0] = 0.0
    return FRAMEWORKS["jax"].make(w, "float64")


@all_cases
def test_under_jit(case: Case) -> None:
    """What tests of all cases compile is what is computed without."""
    w, r = array(case), case.regularizer
    steps = (jnp.asarray(0.3), 0.3 * jnp.exp(w))[: case.has_prox * (1 + case.prox_per_element)]

    def everything(w: jax.Array, steps: Sequence[jax.Array]) -> list[jax.Array]:
        found = [r(w)] + ([r.gradient(w)] if r.differentiable else [])
        return found + [r.prox(w, step) for step in steps]

    for found, plain in zip(jax.jit(everything)(w, steps), everything(w, steps), strict=True):
        np.testing.assert_allclose(found, plain, rtol=1e-12, atol=1e-13)


@all_cases
def test_a_strength_that_is_traced_compiles_once(case: Case) -> None:
    """As schedules have it: value, gradient and prox of factor·Ω, for a factor that is an array."""
    w, r = array(case), case.regularizer

    def everything(r: Regularizer, w: Array) -> list[Array]:
        found = [r(w)]
        found += [r.gradient(w), r.pull(w)] if r.differentiable else []
        return found + ([r.prox(w, 0.3)] if case.has_prox else [])

    scaled = Jitted(lambda factor: everything(r.scaled(factor), w))
    for factor in (0.5, 2.0):
        expected = everything(factor * r, np.asarray(w))
        for f, e in zip(scaled(jnp.asarray(factor)), expected, strict=True):
            np.testing.assert_allclose(f, e, rtol=1e-12, atol=1e-13)
    assert scaled.traces == 1


@all_cases
def test_under_vmap(case: Case) -> None:
    w, r = array(case), case.regularizer
    stacked = jnp.stack([w, 2 * w, jnp.zeros_like(w)])

    def everything(w: Array) -> list[Array]:
        found = [r.gradient(w)] if r.differentiable else []
        return found + ([r.prox(w, 0.3)] if case.has_prox else [])

    one_by_one = zip(*(everything(x) for x in np.asarray(stacked)), strict=True)
    for found, expected in zip(jax.jit(jax.vmap(everything))(stacked), one_by_one, strict=True):
        np.testing.assert_allclose(found, np.stack(expected), rtol=1e-12, atol=1e-13)


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


# --- loops ----------------------------------------------------------------------------------


def length(f: Callable[..., Array], *arrays: Array) -> int:
    """How many operations are compiled, those within loops and functions once."""

    def of(jaxpr: Any) -> int:
        return sum(1 + sum(map(of, jaxprs_in_params(e.params))) for e in jaxpr.eqns)

    return of(jax.make_jaxpr(f)(*arrays).jaxpr)


def test_power_iterations_are_compiled_once() -> None:
    w = jnp.ones((3, 2))
    few, many = (length(SpectralNorm(0.3, iterations=n).gradient, w) for n in (2, 40))
    assert few == many


def test_a_root_is_looked_for_in_one_loop() -> None:
    """The steps of it are compiled once, and what only a derivative needs is not computed."""
    w = jnp.ones((3, 2))
    rows = GroupLasso(1.0, groups=0)
    with_derivative = length(jax.grad(lambda w, s: rows.prox(w, s).sum()), w, w)
    assert length(rows.prox, w, w) < 150 < with_derivative


@pytest.mark.parametrize("steps", [6, 20], ids=["Newton's steps alone", "and bisections"])
def test_where_newton_steps_creep_a_loop_bisects(
    steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    w, c = np.array([[4e7, 5e-7], [3.0, 4.0]]), np.array([[4e7, 5e-7], [0.1, 0.2]])
    rows = GroupLasso(1.0, groups=0, size_weighted=False)
    monkeypatch.setattr(backend, "_STEPS", steps)
    error = np.abs(np.asarray(rows.prox(jnp.asarray(w), jnp.asarray(c))) - rows.prox(w, c)) / w
    assert error[1].max() < 1e-14
    assert (error[0].max() < 1e-10) == (steps == 20)


def test_no_scale_is_too_small_to_look_for_a_root() -> None:
    rng = np.random.default_rng(0)
    w, c = (x.astype(np.float32) for x in (rng.normal(size=(4, 5)), rng.uniform(0, 3, (4, 5))))
    prox = jax.jit(GroupLasso(1.0, groups=0, size_weighted=False).prox)
    u = prox(w, c)
    assert 0 < np.count_nonzero(u) < u.size
    tiny = np.float32(2.0**-80)
    np.testing.assert_array_equal(prox(tiny * w, tiny * c), tiny * u)


def test_derivatives_of_a_root_under_transformations() -> None:
    rng = np.random.default_rng(0)
    w, s = (jnp.asarray(x) for x in (rng.normal(size=(4, 3, 5)), rng.uniform(0, 2, (4, 3, 5))))
    rows = GroupLasso(0.5, groups=0)

    def f(w: Array, s: Array) -> Array:
        return (rows.prox(w, s) ** 2).sum()

    one_by_one = jnp.stack([jax.grad(f)(*x) for x in zip(w, s, strict=True)])
    found = jax.jit(jax.vmap(jax.grad(f)))(w, s)
    np.testing.assert_allclose(found, one_by_one, rtol=1e-12, atol=1e-14)
    _, along = jax.jvp(lambda w: f(w, s[0]), (w[0],), (s[0],))
    np.testing.assert_allclose(along, (one_by_one[0] * s[0]).sum(), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["int32", "complex64"])
def test_only_real_floating_arrays(dtype: str) -> None:
    with pytest.raises(ArrayError, match=f"a JAX array of dtype {dtype}"):
        L2(1.0)(jnp.ones(2, dtype=dtype))
