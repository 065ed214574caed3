"""Derivatives of what is computed: of proximal operators, and second ones of the penalty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import FEW, KINDS, Case
from frameworks import FRAMEWORKS

from penalize import (
    L2,
    FusedLasso,
    LogDet,
    NuclearNorm,
    Regularizer,
    Smoothness,
    SpectralNorm,
)
from penalize.backends import open_array
from penalize.errors import NoDerivativeError
from penalize.regularizers import chain_derivatives, chains

PROXIMAL = [
    pytest.param(case, each, id=f"{case}-{'steps' if each else 'step'}")
    for case in KINDS
    if case.has_prox
    for each in ([False, True] if case.prox_per_element else [False])
]
H = 1e-6
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script`")  # within torch.func's own


def points(case: Case) -> list[np.ndarray]:
    """Inside and outside of what is shrunk to nothing; rows of zeros; two rows that are equal."""
    w = np.random.default_rng(0).normal(size=case.shape)
    zeros, ties = w.copy(), w.copy()
    zeros[0] = zeros[-1].flat[0] = 0.0
    ties[1:] = ties[0]
    return [w, 0.05 * w, 20.0 * w, zeros, ties, np.zeros(case.shape), np.ones(case.shape)]


def sides(f: Callable[[np.ndarray], float], w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The slopes of f to the left and to the right in each element."""
    found = np.empty((2, *w.shape))
    for index in np.ndindex(w.shape):
        for side, sign in enumerate((-1, 1)):
            moved = w.copy()
            moved[index] += sign * H
            found[side][index] = sign * (f(moved) - f(w)) / H
    return found[0], found[1]


BY = [
    pytest.param(case, each, framework, id=f"{case}-{'steps' if each else 'step'}-{framework}")
    for case, each in (parameter.values for parameter in PROXIMAL)
    for framework in ("torch", "jax")
    # JAX compiles each: once for each class and each kind of groups, as far as it goes.
    if framework == "torch" or (case in FEW and each == case.prox_per_element)
]


@pytest.mark.parametrize(("case", "each", "framework"), BY)
def test_of_a_prox(case: Case, each: bool, framework: str) -> None:
    """That of differences where there is one; a finite number where there is a kink."""
    make, back, differentiate = FRAMEWORKS[framework]
    rng = np.random.default_rng(3)
    steps: Any = np.exp(rng.uniform(-4, 0, size=case.shape)) if each else 0.4
    v = rng.normal(size=case.shape)
    along, r = make(v, "float64"), case.regularizer
    its: Any = make(steps, "float64") if each else steps
    for w in points(case):
        found = back(differentiate(lambda x: (along * r.prox(x, its)).sum(), make(w, "float64")))
        assert np.isfinite(found).all()

        def f(x: np.ndarray) -> float:
            return float((v * r.prox(x, steps)).sum())

        left, right = sides(f, w)
        smooth = np.abs(left - right) < 1e-4
        slopes = (left + right) / 2
        for _ in range(3):
            d = smooth * rng.normal(size=case.shape)
            if abs((f(w + H * d) - f(w)) / H - (slopes * d).sum()) > 1e-3:
                smooth[:] = False  # it is not linear there
        np.testing.assert_allclose(found[smooth], slopes[smooth], atol=1e-4)


def hessian_by(way: str, r: Any, w: np.ndarray) -> np.ndarray:
    size = w.size
    if way == "jax":
        import jax

        return np.asarray(jax.jit(jax.hessian(r))(w)).reshape(size, size)
    if way == "jax, reverse twice":
        import jax

        return np.asarray(jax.jit(jax.jacrev(jax.grad(r)))(w)).reshape(size, size)
    if way == "tensorflow":
        import tensorflow as tf

        x = tf.constant(w)
        with tf.GradientTape(persistent=True) as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                value = r(x)
            gradient = inner.gradient(value, x)
        return outer.jacobian(gradient, x, experimental_use_pfor=False).numpy().reshape(size, size)
    import torch

    x = torch.tensor(w)
    if way == "torch.func":
        return torch.func.hessian(r)(x).numpy().reshape(size, size)
    return torch.autograd.functional.hessian(r, x).numpy().reshape(size, size)


ORTHONORMAL = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))[0]
WAYS = ["torch.func", "torch, backward twice", "jax", "jax, reverse twice", "tensorflow"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "r",
    [
        NuclearNorm(0.3),
        LogDet(0.7, epsilon=0.5),
        SpectralNorm(0.4),
        SpectralNorm(0.4, iterations=30),
        LogDet(0.3, rows=(0, 1)) + L2(0.1),
    ],
    ids=repr,
)
def test_second_ones_of_singular_values(r: Regularizer, way: str) -> None:
    """Of wide and tall matrices, and with values that are equal: not silently 0."""
    if "iterations" in repr(r) and not way.startswith("torch"):
        return  # the same operations as on PyTorch, and a minute of compiling
    rng = np.random.default_rng(0)
    tied = (ORTHONORMAL * [3.0, 1.0, 1.0, 0.5]) @ ORTHONORMAL.T  # the largest stands alone
    wide, tall, three = (rng.normal(size=shape) for shape in [(3, 4), (4, 2), (2, 2, 3)])
    matrices = [tied] if "jax" in way or "iterations" in repr(r) else [tied, wide, tall]
    for w in [three] if "rows" in repr(r) else matrices:
        found = hessian_by(way, r, w)
        assert np.abs(found).max() > 0.05
        step = 1e-5 * np.eye(w.size).reshape(w.size, *w.shape)
        both = [(r.gradient(w + h) - r.gradient(w - h)).ravel() / 2e-5 for h in step]
        np.testing.assert_allclose(found, np.stack(both), atol=2e-5)
        np.testing.assert_allclose(found, found.T, atol=1e-9)


@pytest.mark.parametrize("way", ["torch.func", "jax"])
@pytest.mark.parametrize("r", [NuclearNorm(0.3), LogDet(0.7), SpectralNorm(0.4)], ids=repr)
def test_second_ones_where_there_are_none(r: Regularizer, way: str) -> None:
    """At a matrix of zeros, of rank one, and where all values are the largest: finite."""
    for w in (np.zeros((2, 3)), np.ones((3, 2)), np.eye(2), np.zeros((2, 2))):
        assert np.isfinite(hessian_by(way, r, w)).all()


@pytest.mark.parametrize(
    "case",
    [c for c in KINDS if c.regularizer.differentiable and "Custom" not in repr(c.regularizer)],
    ids=str,
)
def test_second_ones(case: Case) -> None:
    """Torch's, against differences of the gradient; where they are all 0, both are."""
    w, r = np.random.default_rng(0).normal(size=case.shape), case.regularizer
    found = hessian_by("torch, backward twice", r, w)
    step = 1e-6 * np.eye(w.size).reshape(w.size, *w.shape)
    both = [(r.gradient(w + h) - r.gradient(w - h)).ravel() / 2e-6 for h in step]
    np.testing.assert_allclose(found, np.stack(both), atol=2e-5)


CHAIN = np.array([[1.0, 1.1, -2.0, -2.3, 0.4, 0.5, 3.0], [0.0, 0.1, 0.3, 2.0, 1.9, 1.8, -1.0]])
STEPS = np.array([[0.3, 0.2, 0.0, 0.5, 2.0, 0.4, 0.1], [0.0, 0.7, 0.2, 40.0, 0.0, 0.0, 0.5]])


@pytest.mark.parametrize("c", [STEPS, 0.0 * STEPS, 0.3 + 0.0 * STEPS, 1e4 * STEPS], ids=str)
@pytest.mark.parametrize("name", ["fused", "smooth"])
def test_of_chains(name: str, c: np.ndarray) -> None:
    """By weights and by steps, of which some or all are 0: what differences upwards say."""
    f, back = getattr(chains, name), getattr(chain_derivatives, name)
    g = np.random.default_rng(0).normal(size=CHAIN.shape)
    found = back(g, CHAIN, c)
    for which in (0, 1):
        for index in np.ndindex(CHAIN.shape):
            moved = [CHAIN.copy(), c.copy()]
            h = 1e-7 * (1 + abs(moved[which][index]))
            moved[which][index] += h
            slope = (g * (f(*moved) - f(CHAIN, c))).sum() / h
            np.testing.assert_allclose(found[which][index], slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("r", [FusedLasso(0.3), Smoothness(0.4)], ids=repr)
def test_of_a_step(r: Regularizer, framework: str) -> None:
    """At 0 the least subgradient backwards, also where weights are tied; in TensorFlow no None."""
    make, back, differentiate = FRAMEWORKS[framework]
    total = open_array(make(np.ones(1), "float64"))[1].total
    w = np.array([[1.0, 1.0, 1.0, 3.0], [0.0, 2.0, 2.0, 1.0]])
    v = np.random.default_rng(0).normal(size=w.shape)
    for step in (0.0, 0.1):
        found = differentiate(
            lambda s: total(make(v, "float64") * r.prox(make(w, "float64"), s)),
            make(np.asarray(step), "float64"),
        )
        slope = (v * (r.prox(w, step + 1e-7) - r.prox(w, step))).sum() / 1e-7
        np.testing.assert_allclose(back(found), slope, atol=1e-5)
        if not step:
            np.testing.assert_allclose(back(found), -(v * r.gradient(w)).sum(), atol=1e-12)


@pytest.mark.parametrize("way", WAYS)
def test_second_ones_of_what_the_host_computes(way: str) -> None:
    """Refused: they are not silently 0 or None."""
    w = np.random.default_rng(0).normal(size=(2, 4))

    def f(x: Any) -> Any:
        u = FusedLasso(0.3).prox(x, 0.4)
        return L2(1.0)(u)

    expected = (NoDerivativeError, TypeError) if way == "jax" else NoDerivativeError  # JAX' own
    with pytest.raises(expected, match=r"differentiated once, backwards|forward-mode"):
        hessian_by(way, f, w)
