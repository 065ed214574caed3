"""Weights whose squares are no numbers of float32: what depends on a norm depends on no scale."""

from __future__ import annotations

import numpy as np
import pytest
from frameworks import FRAMEWORKS, Framework

from penalize import (
    GroupLasso,
    GroupMCP,
    LogDet,
    MaxNorm,
    Orthogonal,
    Regularizer,
    SparseGroupLasso,
    SpectralNorm,
    UnitNorm,
)

W = np.array([[3.0, 4.0, -12.0], [1.0, 2.0, -2.0]])
NUMPY = Framework(lambda w, dtype: w.astype(dtype), lambda w: np.asarray(w, dtype=np.float64), None)
ALL = {"numpy": NUMPY, **FRAMEWORKS}
PARTITION = [[0, 1, 2], [3, 4, 5]]
on_each = pytest.mark.parametrize("framework", ALL)
at_extremes = pytest.mark.parametrize("scale", [1e-25, 1e-30, 1e25, 1e30])


def test_the_naive_way() -> None:
    for scale, found in ((1e-25, 0.0), (1e25, np.inf)):
        with np.errstate(over="ignore", under="ignore"):
            assert np.sqrt(((scale * W).astype(np.float32) ** 2).sum()) == found


@on_each
@at_extremes
@pytest.mark.parametrize(
    ("r", "degree"),
    [
        (GroupLasso(0.5, 0), 1),
        (GroupLasso(0.5, PARTITION, size_weighted=False), 1),
        (SparseGroupLasso(0.5, groups=0), 1),
        (Orthogonal(0.5), 0),
    ],
    ids=str,
)
def test_what_is_homogeneous(r: Regularizer, degree: int, framework: str, scale: float) -> None:
    """Ω(cw) = c^d·Ω(w): its value, its gradient in both ways, and the prox of a step c."""
    make, back, differentiate = ALL[framework]
    w = make(scale * W, "float32")
    value = float(r(W)) * scale**degree
    assert float(back(r(w))) == pytest.approx(value, rel=1e-5)
    slope = r.gradient(W) * scale ** (degree - 1)
    close = {"rtol": 1e-4, "atol": 1e-6 * float(np.abs(slope).max())}
    np.testing.assert_allclose(back(r.gradient(w)), slope, **close)
    if differentiate is not None:
        np.testing.assert_allclose(back(differentiate(r, w)), slope, **close)
    if degree:
        moved = back(r.prox(w, 2.0 * scale)) / scale
        np.testing.assert_allclose(moved, r.prox(W, 2.0), rtol=1e-5, atol=1e-6)


@on_each
@at_extremes
def test_what_is_none(framework: str, scale: float) -> None:
    make, back, _ = ALL[framework]
    w = make(scale * W, "float32")
    low = scale < 1
    mcp = GroupMCP(0.5, groups=0)
    lasso = GroupLasso(0.5, 0)
    slope = lasso.gradient(W) if low else 0.0 * W
    np.testing.assert_allclose(back(mcp.gradient(w)), slope, rtol=1e-5)
    expected = scale * float(lasso(W)) if low else float(mcp(1e3 * W))
    assert float(back(mcp(w))) == pytest.approx(expected, rel=1e-5)
    assert np.isfinite(back(mcp.pull(w))).all()
    for ball, reach in ((MaxNorm(2.0 * scale, 0), MaxNorm(2.0, 0)), (UnitNorm(0), UnitNorm(0))):
        over = scale if isinstance(ball, MaxNorm) else 1.0
        np.testing.assert_allclose(back(ball.prox(w, 1.0)) / over, reach.prox(W, 1.0), rtol=1e-5)
    norm = SpectralNorm(0.5, iterations=8)
    np.testing.assert_allclose(back(norm.gradient(w)) / scale, norm.gradient(W), rtol=1e-4)
    rank = LogDet(0.5, epsilon=0.25)
    assert float(back(rank(w))) == pytest.approx(0.0 if low else float(rank(scale * W)), rel=1e-5)
    np.testing.assert_allclose(back(rank.gradient(w)), rank.gradient(scale * W), rtol=1e-3)
