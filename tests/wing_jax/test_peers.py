"""Projections and proximal operators against those of optax and jaxopt, alone and over trees."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from optax import projections

from penalize import (
    L1,
    L1L2,
    L2,
    Box,
    GroupLasso,
    MaxNorm,
    NonNegative,
    Regularizer,
    Simplex,
    UnitNorm,
    everything,
)
from penalize.jax import regularize

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    prox: Any = importlib.import_module("jaxopt.prox")

RNG = np.random.default_rng(0)
ARRAYS = {
    "small": RNG.normal(size=6) * 0.1,
    "mixed": RNG.normal(size=6),
    "large": RNG.normal(size=6) * 50.0,
    "zeros": np.zeros(6),
    "edge": np.array([1.0, -1.0, 0.5, -0.5, 0.0, 2.0]),
    "one": np.array([1.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
    "equal": np.full(6, 1.0 / 6),
}

PROJECTIONS: dict[str, tuple[Regularizer, Callable[[Any], Any]]] = {
    "non-negative": (NonNegative(), projections.projection_non_negative),
    "box": (Box(-0.3, 1.2), lambda w: projections.projection_box(w, -0.3, 1.2)),
    "hypercube": (Box(0.0, 2.0), lambda w: projections.projection_hypercube(w, 2.0)),
    "simplex": (Simplex(groups=()), projections.projection_simplex),
    "simplex to 3": (Simplex(3.0, groups=()), lambda w: projections.projection_simplex(w, 3.0)),
    "l2 ball": (MaxNorm(1.5, groups=()), lambda w: projections.projection_l2_ball(w, 1.5)),
    "l2 sphere": (UnitNorm(groups=()), projections.projection_l2_sphere),
}
PROXES: dict[str, tuple[Regularizer, Callable[[Any, float], Any]]] = {
    "lasso": (L1(0.3), lambda w, s: prox.prox_lasso(w, 0.3, s)),
    "ridge": (L2(0.2), lambda w, s: prox.prox_ridge(w, 0.4, s)),
    "elastic net": (L1L2(0.3, 0.15), lambda w, s: prox.prox_elastic_net(w, (0.3, 1.0), s)),
    "group lasso": (
        GroupLasso(0.3, groups=(), size_weighted=False),
        lambda w, s: prox.prox_group_lasso(w, 0.3, s),
    ),
    "non-negative lasso": (
        L1(0.3) + NonNegative(),
        lambda w, s: prox.prox_non_negative_lasso(w, 0.3, s),
    ),
    "non-negative ridge": (
        L2(0.2) + NonNegative(),
        lambda w, s: prox.prox_non_negative_ridge(w, 0.4, s),
    ),
}


@pytest.mark.parametrize("name", PROJECTIONS)
def test_projections_are_those_of_optax(name: str) -> None:
    ours, theirs = PROJECTIONS[name]
    for kind, w in ARRAYS.items():
        if name == "l2 sphere" and kind == "zeros":
            continue  # every direction is as near, and each library has its own
        found = ours.prox(jnp.asarray(w), 0.7)  # whatever the step
        np.testing.assert_allclose(found, theirs(jnp.asarray(w)), atol=1e-12, err_msg=kind)
        np.testing.assert_allclose(ours.prox(found, 1.0), found, atol=1e-12)
        np.testing.assert_allclose(ours.prox(w, 0.7), found, atol=1e-12)


@pytest.mark.parametrize("name", PROXES)
def test_proximal_operators_are_those_of_jaxopt(name: str) -> None:
    ours, theirs = PROXES[name]
    for kind, w in ARRAYS.items():
        for step in (0.0, 0.5, 3.0):
            found = ours.prox(jnp.asarray(w), step)
            expected = theirs(jnp.asarray(w), step)
            np.testing.assert_allclose(found, expected, atol=1e-12, err_msg=f"{kind} {step}")


@pytest.mark.parametrize("name", ["simplex", "lasso", "box"])
def test_many_at_once_and_slopes(name: str) -> None:
    """vmap is a loop, and the derivative is that of the other library, away from kinks."""
    ours, theirs = {**PROJECTIONS, **PROXES}[name]
    args = (0.7,) if name in PROXES else ()
    w = jnp.asarray(ARRAYS["mixed"])
    batch = jnp.stack([jnp.asarray(ARRAYS[kind]) for kind in ("small", "mixed", "large")])
    together = jax.vmap(lambda w: ours.prox(w, 0.7))(batch)
    for one, found in zip(batch, together, strict=True):
        np.testing.assert_allclose(found, ours.prox(one, 0.7), atol=1e-12)
    found = jax.jacrev(lambda w: ours.prox(w, 0.7))(w)
    np.testing.assert_allclose(found, jax.jacrev(lambda w: theirs(w, *args))(w), atol=1e-10)


def test_a_plan_projects_the_leaves_of_a_tree() -> None:
    tree = {"a": jnp.asarray([-1.0, 2.0]), "b": [jnp.asarray([3.0, -4.0]), {"c": jnp.ones(2)}]}
    plan = regularize(tree, {everything: NonNegative(), "b.0": MaxNorm(1.0, groups=())})
    found = plan.prox(tree, 1.0)
    np.testing.assert_allclose(found["a"], [0.0, 2.0])
    np.testing.assert_allclose(found["b"][0], [0.6, -0.8])
    np.testing.assert_allclose(found["b"][1]["c"], [1.0, 1.0])
