"""Group norms under a step per element: optimality, to rounding, however the steps differ."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import tensorflow as tf
import torch
from frameworks import FRAMEWORKS
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from penalize import L1, L2, GroupLasso
from penalize.regularizers import diagonal

v1 = tf.compat.v1
ROWS = GroupLasso(1.0, groups=0, size_weighted=False)
ROUNDINGS = 32
"""How many rounding errors of a weight its condition may miss by."""

at_each_width = pytest.mark.parametrize("dtype", [np.float64, np.float32])


def residual(u: np.ndarray, w: np.ndarray, c: np.ndarray) -> np.ndarray:
    """|w − u − c·u/‖u‖| / |w| for rows that are not zero, in wider arithmetic."""
    u, w, c = (np.asarray(x, np.longdouble) for x in (u, w, c))
    return np.abs(w - u - c * u / np.sqrt((u**2).sum(1, keepdims=True))) / np.abs(w)


def at_zero(w: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Σ (w/c)² of each row: 0 is its prox iff this is at most 1."""
    with np.errstate(divide="ignore"):
        return ((np.asarray(w, np.longdouble) / c) ** 2).sum(1)


def powers(rng: np.random.Generator, shape: tuple[int, int], low: float, high: float) -> np.ndarray:
    return 10 ** rng.uniform(low, high, size=shape)


def hard_rows(size: int, count: int = 300) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Weights and c over sixteen orders of magnitude, where the root lies between them."""
    rng = np.random.default_rng(0)
    shape, column = (count, size), (count, 1)
    for kind in ("apart", "alike", "evenly", "some 0", "at the edge", "mild"):
        w, c = powers(rng, shape, -8, 8), powers(rng, shape, -8, 8)
        if kind == "alike":
            w = c.copy()
        elif kind == "evenly":
            c = np.tile(np.logspace(-8, 8, size), (count, 1))
            w = c * powers(rng, column, -1, 1)
        elif kind == "some 0":
            c = c * rng.integers(0, 2, size=shape)
        elif kind == "at the edge":
            w = c * rng.uniform(0.1, 1, size=shape)
            w *= (1 + powers(rng, column, -6, 0)) / np.sqrt(((w / c) ** 2).sum(1, keepdims=True))
        elif kind == "mild":
            w, c = rng.normal(size=shape), powers(rng, shape, -1, 0)
        yield kind, w, c


@at_each_width
@pytest.mark.parametrize("size", [1, 2, 3, 17, 300])
def test_optimal_to_rounding(size: int, dtype: type) -> None:
    eps = np.finfo(dtype).eps
    for kind, w, c in hard_rows(size):
        w, c = w.astype(dtype), c.astype(dtype)
        u = ROWS.prox(w, c)
        assert u.dtype == dtype
        zero = ~u.any(axis=1)
        assert zero[at_zero(w, c) < 1 - ROUNDINGS * eps].all(), kind
        assert not zero[at_zero(w, c) > 1 + ROUNDINGS * eps].any(), kind
        assert residual(u[~zero], w[~zero], c[~zero]).max(initial=0) < ROUNDINGS * eps, kind


def test_newton_steps_alone_creep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why there are bisections: as many Newton steps are far from the root of some groups."""
    worst = {}
    for name, schedule in (("naive", [False] * len(diagonal._BISECT)), ("ours", diagonal._BISECT)):
        monkeypatch.setattr(diagonal, "_BISECT", schedule)
        found = []
        for _, w, c in hard_rows(2):
            live = at_zero(w, c) > 1
            found.append(residual(ROWS.prox(w, c)[live], w[live], c[live]).max(initial=0))
        worst[name] = max(found)
    tolerance = ROUNDINGS * np.finfo(np.float64).eps
    assert worst["naive"] > 1e6 * tolerance
    assert worst["ours"] < tolerance


@at_each_width
def test_no_scale_is_too_large_or_too_small(dtype: type) -> None:
    """Twice (to an even power) the weights and steps is twice the result, to the last bit."""
    power = 100 if dtype is np.float32 else 900
    rng = np.random.default_rng(0)
    w = rng.normal(size=(50, 5)).astype(dtype)
    c = rng.uniform(0, 4, size=(50, 5)).astype(dtype)
    u = ROWS.prox(w, c)
    assert 0 < (~u.any(axis=1)).sum() < 50
    for scale in (dtype(2.0) ** power, dtype(2.0) ** -power):
        np.testing.assert_array_equal(ROWS.prox(scale * w, scale * c), scale * u)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_each_framework(framework: str, dtype: str) -> None:
    make, back, _ = FRAMEWORKS[framework]
    for kind, w, c in hard_rows(6, count=50):
        by_rows, steps = make(w, dtype), make(c, dtype)
        seen, its = back(by_rows), back(steps)
        by_list = GroupLasso(1.0, np.arange(300).reshape(50, 6).tolist(), size_weighted=False)
        for r in (ROWS, by_list):
            found = r.prox(by_rows, steps)
            assert found.dtype == by_rows.dtype
            clear = np.abs(at_zero(seen, its) - 1) > 1e-5
            tolerance = {"float64": 1e-10, "float32": 1e-5, "bfloat16": 1e-2}[dtype]
            expected = ROWS.prox(seen, its)
            size = np.abs(seen)
            error = np.abs(back(found) - expected) / size
            assert error[clear].max() < tolerance, kind
            np.testing.assert_array_equal(back(found)[clear] == 0, expected[clear] == 0)


def test_in_a_graph_of_tensorflow_1() -> None:
    w, c = np.array([[3.0, -4.0], [0.1, 0.1]]), np.array([[1.0, 2.0], [1.0, 0.5]])
    with tf.Graph().as_default(), v1.Session() as session:
        held = v1.placeholder(tf.float64, [2, 2])
        found = session.run(ROWS.prox(held, tf.constant(c)), {held: w})
    np.testing.assert_allclose(found, ROWS.prox(w, c), rtol=1e-14)
    np.testing.assert_array_equal(found != 0, [[True, True], [False, False]])


# --- any groups -----------------------------------------------------------------------------

sizes = st.floats(-1e3, 1e3).filter(lambda x: x == 0 or abs(x) > 1e-100)
arrays = hnp.array_shapes(max_dims=4, min_side=0, max_side=3).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.float64, shape, elements=sizes),
        hnp.arrays(np.float64, shape, elements=sizes.map(abs)),
    )
)


@given(arrays=arrays, data=st.data(), weighted=st.booleans())
def test_any_axes_and_partition(
    arrays: tuple[np.ndarray, np.ndarray], data: st.DataObject, weighted: bool
) -> None:
    w, steps = arrays
    if data.draw(st.booleans()):
        ids = data.draw(hnp.arrays(int, w.size, elements=st.integers(0, 3)))
        groups = [np.flatnonzero(ids == i).tolist() for i in range(4)]
        labels = ids.reshape(w.shape)
    else:
        groups = data.draw(st.sets(st.integers(0, w.ndim - 1)).map(tuple))
        shape = [w.shape[a] if a in groups else 1 for a in range(w.ndim)]
        labels = np.broadcast_to(np.arange(np.prod(shape, dtype=int)).reshape(shape), w.shape)
    r = GroupLasso(0.3, groups=groups, size_weighted=weighted)
    u = r.prox(w, steps)
    np.testing.assert_allclose(r.prox(torch.tensor(w), torch.tensor(steps)), u, rtol=1e-9)
    for label in np.unique(labels):
        inside = labels == label
        v, p = w[inside][None], u[inside][None]
        c = steps[inside][None] * 0.3 * (np.sqrt(v.size) if weighted else 1.0)
        p, v, c = p[v != 0][None], v[v != 0][None], c[v != 0][None]
        assert (np.abs(p) <= np.abs(v)).all()
        if not p.any():
            assert at_zero(v, c)[0] <= 1 + 1e-12
        else:
            assert residual(p, v, c).max() < 1e-10
    assert not u[w == 0].any()
    assert np.array_equal(u[steps == 0], w[steps == 0])


@given(w=hnp.arrays(np.float64, (6, 1), elements=sizes), steps=st.floats(0, 1e3))
def test_a_group_of_one_is_soft_thresholded(w: np.ndarray, steps: float) -> None:
    c = np.full(w.shape, steps)
    np.testing.assert_allclose(ROWS.prox(w, c), L1(1.0).prox(w, c), rtol=1e-12, atol=1e-300)


def test_it_keeps_what_has_no_step_and_what_has_no_penalty() -> None:
    w = np.random.default_rng(0).normal(size=(4, 5))
    steps = np.array([0.0, 1e8, 0.0, 1.0, 1e-8])
    u = ROWS.prox(w, np.tile(steps, (4, 1)))
    np.testing.assert_array_equal(u[:, steps == 0], w[:, steps == 0])
    assert (np.abs(u[:, 1]) < np.abs(w[:, 1])).all()
    np.testing.assert_array_equal((0 * ROWS).prox(w, np.tile(steps, (4, 1))), w)
    np.testing.assert_array_equal(ROWS.prox(w, np.full(w.shape, np.inf)), np.zeros(w.shape))


def test_nan_stays_visible_and_in_its_group() -> None:
    for place in ("weight", "step"):
        w, steps = np.ones((3, 2)), np.full((3, 2), 0.1)
        (w if place == "weight" else steps)[1, 0] = np.nan
        found = np.isnan(ROWS.prox(w, steps))
        np.testing.assert_array_equal(found, [[False, False], [True, True], [False, False]])


# --- sums -----------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32 - 1), spread=st.floats(0, 6))
def test_sparse_groups_with_a_ridge_are_optimal(seed: int, spread: float) -> None:
    """(w − p)/s ∈ a·∂‖·‖₁ + 2b·p + λ·∂‖·‖ of each row."""
    rng = np.random.default_rng(seed)
    a, b, strength = rng.uniform(0, 0.5, size=3)
    s = powers(rng, (6, 4), -spread / 2, spread / 2)
    w = rng.normal(size=(6, 4)) * s * rng.uniform(0, 3, size=(6, 1))
    p = (L1(a) + L2(b) + GroupLasso(strength, 0, size_weighted=False)).prox(w, s)
    pull = (w - p) / s - 2 * b * p
    scale = 1 + np.abs(w / s)
    for row, left, size in zip(p, pull, scale, strict=True):
        if not row.any():
            soft = np.maximum(np.abs(left) - a, 0)
            assert np.linalg.norm(soft) <= strength * (1 + 1e-10)
            continue
        left = left - strength * row / np.linalg.norm(row)
        np.testing.assert_allclose(
            (left - a * np.sign(row))[row != 0] / size[row != 0], 0, atol=1e-10
        )
        assert (np.abs(left[row == 0]) <= a + 1e-10).all()


@given(seed=st.integers(0, 2**32 - 1))
def test_a_minimiser_is_a_fixed_point_whatever_the_steps(seed: int) -> None:
    """p = prox(p − s·∇f) for every s, iff −∇f(p) ∈ ∂Ω(p): under Adam the same as under SGD."""
    rng = np.random.default_rng(seed)
    p = rng.normal(size=(5, 4))
    p[:2] = 0
    inside = rng.normal(size=(2, 4))
    inside *= rng.uniform(0, 0.99, size=(2, 1)) / np.linalg.norm(inside, axis=1, keepdims=True)
    subgradient = ROWS.gradient(p)
    subgradient[:2] = inside
    for s in (0.3, powers(rng, p.shape, -4, 4)):
        found = ROWS.prox(p + s * subgradient, s)
        np.testing.assert_allclose(found, p, atol=1e-10)
        assert not found[:2].any()
