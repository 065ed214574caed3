"""What the tests of libraries of penalties and proximal operators assert, of what is ours too.

The numbers are those that skglm, pyproximal, copt, jaxopt and Keras give.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from penalize import (
    L1,
    L1L2,
    L2,
    MCP,
    SCAD,
    Box,
    FusedLasso,
    GroupLasso,
    Huber,
    LInf1,
    LogSum,
    MaxNorm,
    NuclearNorm,
    Orthogonal,
    Regularizer,
    Simplex,
    SparseGroupLasso,
    SpectralNorm,
)

W = np.array([3.0, -0.5, 1.5])
MATRIX = np.array([[3.0, 0.0, 1.0], [4.0, 2.0, 1.0]])
KERNEL = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
PAIRS = [[0, 1], [2]]


@pytest.mark.parametrize(
    ("r", "value", "prox"),
    [
        (L1(1.0), 5.0, [2.5, 0, 1]),
        (L2(0.5), 5.75, [2, -1 / 3, 1]),  # pyproximal's L2 has a half
        (L1L2(1.0, 0.15), 6.725, [2.173913, 0, 0.869565]),  # jaxopt's (1, 0.3)
        (MCP(1.0, 3.0), 3.083333, [3, 0, 1.2]),
        (SCAD(1.0, 3.7), 4.212963, [2.840909, 0, 1]),
        (Huber(1.0), 3.625, [2.5, -0.333333, 1]),
        (LogSum(1.0, 0.1), None, [2.829311, 0, 0]),
        (LogSum(1 / math.log(2.3), 1 / 1.3), None, [2.833369, 0, 1.194267]),  # pyproximal's Log
        (GroupLasso(1.0, PAIRS, size_weighted=False), None, [2.506803, -0.417801, 1]),
        (FusedLasso(1.0), 5.5, [2.5, 0.5, 1]),
    ],
    ids=str,
)
def test_numbers(r: Regularizer, value: float | None, prox: list[float]) -> None:
    if value is not None:
        assert float(r(W)) == pytest.approx(value, abs=1e-6)
    np.testing.assert_allclose(r.prox(W, 0.5), prox, atol=1e-6)


def test_numbers_with_a_weight_for_each_element() -> None:
    """skglm's WeightedMCPenalty: the weights multiply the penalty, as our factor and step do."""
    weights, mcp = np.array([1.0, 2.0, 0.5]), MCP(1.0, 3.0)
    value = sum(float(MCP(1.0, 3.0, factor=c)(w[None])) for c, w in zip(weights, W, strict=True))
    assert value == pytest.approx(2.979167, abs=1e-6)
    np.testing.assert_allclose(mcp.prox(W, 0.5 * weights), [3, 0, 1.363636], atol=1e-6)


def test_numbers_of_matrices() -> None:
    expected = [[2.643588, 0.306749, 0.830071], [3.686025, 1.61295, 0.95985]]
    np.testing.assert_allclose(NuclearNorm(1.0).prox(MATRIX, 0.5), expected, atol=1e-6)
    assert float(Orthogonal(0.01)(KERNEL)) == pytest.approx(0.0098532, abs=1e-7)
    assert float(Orthogonal(0.01, "columns")(KERNEL)) == pytest.approx(0.0099386, abs=1e-7)


STEP = 0.7


@pytest.mark.parametrize(
    ("norm", "ball"),
    [
        (L1(0.4), Box(-0.4 * STEP, 0.4 * STEP)),
        (GroupLasso(0.4, 0, size_weighted=False), MaxNorm(0.4 * STEP, 0)),
        (GroupLasso(0.4, (), size_weighted=False), MaxNorm(0.4 * STEP, ())),
    ],
    ids=str,
)
def test_what_a_prox_takes_is_the_projection_onto_the_ball_of_the_dual_norm(
    norm: Regularizer, ball: Regularizer
) -> None:
    """Moreau's identity, for one step and with a step for each element."""
    rng = np.random.default_rng(0)
    for scale in (0.05, 1.0, 20.0):
        w = scale * rng.normal(size=(3, 4))
        taken = w - norm.prox(w, STEP)
        np.testing.assert_allclose(taken, ball.prox(w, 1.0), atol=1e-12)
        np.testing.assert_allclose(taken, w - norm.prox(w, np.full(w.shape, STEP)), atol=1e-9)


def test_what_the_prox_of_a_largest_element_takes_is_on_a_simplex() -> None:
    """The dual norm of the largest is the sum: the projection onto the simplex, with signs."""
    w = 3.0 * np.random.default_rng(0).normal(size=(3, 4))
    taken = w - LInf1(0.4, 0).prox(w, STEP)
    simplex = Simplex(0.4 * STEP, 0).prox(np.abs(w), 1.0)
    np.testing.assert_allclose(taken, np.sign(w) * simplex, atol=1e-12)


def test_the_prox_of_a_nuclear_norm_takes_what_a_largest_singular_value_may_be() -> None:
    w = np.random.default_rng(0).normal(size=(3, 4))
    u, s, vt = np.linalg.svd(w, full_matrices=False)
    clipped = (u * np.minimum(s, 0.3)) @ vt
    np.testing.assert_allclose(w - NuclearNorm(1.0).prox(w, 0.3), clipped, atol=1e-12)
    assert float(SpectralNorm(1.0)(w)) == pytest.approx(s[0] ** 2)


@pytest.mark.parametrize(
    "r",
    [
        L1(0.3),
        L1L2(0.2, 0.1),
        MCP(0.3, 6.0),
        SCAD(0.3, 6.0),
        LogSum(0.05, 0.3),
        Huber(0.3, 0.1),
        GroupLasso(0.2, [[0, 1, 2], [3, 4], [5, 6, 7]]),
        SparseGroupLasso(0.2, 0.5, [[0, 1, 2], [3, 4], [5, 6, 7]]),
        L1(0.1) + GroupLasso(0.1, [[0, 1, 2], [3, 4], [5, 6, 7]]) + L2(0.05),
    ],
    ids=str,
)
def test_where_proximal_gradient_steps_end_the_slopes_cancel(r: Any) -> None:
    """skglm's two distances: that of a fixed point, and that of −∇loss from the subdifferential."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 8))
    y = x @ np.array([1.0, 0, 0, -2.0, 0.5, 0, 0, 0]) + 0.1 * rng.normal(size=40)
    step = 1 / np.linalg.norm(x, 2) ** 2 * 40

    def slope(w: np.ndarray) -> np.ndarray:
        return x.T @ (x @ w - y) / 40

    w = np.zeros(8)
    for _ in range(500):
        w = r.prox(w - step * slope(w), step)
    np.testing.assert_allclose(r.prox(w - step * slope(w), step), w, atol=1e-10)
    found = w != 0
    assert found.any()
    np.testing.assert_allclose((slope(w) + r.gradient(w))[found], 0.0, atol=1e-9)
    if not isinstance(r, Huber):
        assert found.sum() < 8
