"""Constraints: what they project to, what Keras' give, and what the others make of them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from frameworks import FRAMEWORKS
from scipy.optimize import minimize

from penalize import (
    L1,
    L2,
    ArrayError,
    Box,
    GroupLasso,
    GroupMCP,
    GroupsError,
    MaxNorm,
    MinMaxNorm,
    NoGradientError,
    NonNegative,
    NoProximalOperatorError,
    Regularizer,
    RegularizerError,
    Simplex,
    SparseGroupLasso,
    UnitNorm,
    blocks,
    linear,
)
from penalize.regularizers.place import Place

ALL = [
    NonNegative(),
    Box(-0.5, 0.7),
    MaxNorm(0.8, groups=0),
    UnitNorm(groups=0),
    MinMaxNorm(0.5, 0.8, groups=0),
    Simplex(groups=0),
]
each_constraint = pytest.mark.parametrize("r", ALL, ids=repr)


def sample(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(3, 4))


# --- the projections ------------------------------------------------------------------------


def nearest(w: np.ndarray, s: np.ndarray, **where: Any) -> np.ndarray:
    """By a solver of SciPy's."""
    found = minimize(
        lambda u: 0.5 * ((u - w) ** 2 / s).sum(),
        np.full(w.shape, 1 / w.size),
        jac=lambda u: (u - w) / s,
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
        **where,
    )
    assert found.status in (0, 8), found.message  # 8: it finds no better point along its line
    return np.asarray(found.x)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("each", [False, True])
def test_projections_are_those_of_a_solver(seed: int, each: bool) -> None:
    rng = np.random.default_rng(seed)
    w = rng.normal(size=5)
    s = 10 ** rng.uniform(-1, 1, size=5) if each else np.ones(5)
    ball = {"type": "ineq", "fun": lambda u: 0.25 - u @ u, "jac": lambda u: -2 * u}
    plane = {"type": "eq", "fun": lambda u: u.sum() - 1, "jac": np.ones_like}
    for r, found in (
        (MaxNorm(0.5, groups=()), nearest(w, s, constraints=[ball])),
        (MinMaxNorm(0, 0.5, groups=()), nearest(w, s, constraints=[ball])),
        (Simplex(groups=()), nearest(w, s, constraints=[plane], bounds=[(0, None)] * 5)),
        (Box(-0.2, 0.4), nearest(w, s, bounds=[(-0.2, 0.4)] * 5)),
        (NonNegative(), nearest(w, s, bounds=[(0, None)] * 5)),
    ):
        np.testing.assert_allclose(r.prox(w, s if each else 0.3), found, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_with_a_lasso_and_a_ridge_they_are_those_of_a_solver(seed: int) -> None:
    """|u| as the sum of two parts that are not negative."""
    rng = np.random.default_rng(seed)
    w, s = rng.normal(size=4), 10 ** rng.uniform(-1, 1, size=4)
    sign = np.array([1.0, -1.0])

    def f(parts: np.ndarray) -> float:
        u = sign @ parts.reshape(2, 4)
        return float(0.5 * ((u - w) ** 2 / s).sum() + 0.2 * parts.sum() + 0.3 * u @ u)

    def inside(parts: np.ndarray) -> float:
        u = sign @ parts.reshape(2, 4)
        return float(0.25 - u @ u)

    for r, where in (
        (MaxNorm(0.5, groups=()), {"constraints": [{"type": "ineq", "fun": inside}]}),
        (
            NonNegative(),
            {"constraints": [{"type": "ineq", "fun": lambda p: sign @ p.reshape(2, 4)}]},
        ),
    ):
        found = minimize(
            f,
            np.full(8, 0.1),
            method="SLSQP",
            bounds=[(0, None)] * 8,
            options={"ftol": 1e-14, "maxiter": 500},
            **where,
        )
        p = (L1(0.2) + L2(0.3) + r).prox(w, s)
        np.testing.assert_allclose(p, sign @ found.x.reshape(2, 4), atol=1e-5)


def test_capped_norms_are_optimal_to_rounding_however_the_steps_differ() -> None:
    """w/u − 1 = ν·s: the same ν for all elements of a group."""
    rng = np.random.default_rng(0)
    w = 10 ** rng.uniform(-8, 8, size=(300, 6))
    s = 10 ** rng.uniform(-8, 8, size=(300, 6))
    for limit in (1e-6, 1.0, 1e6):
        u = MaxNorm(limit, groups=0).prox(w, s)
        norms = np.linalg.norm(w, axis=1)
        over = norms > limit * (1 + 1e-9)
        np.testing.assert_array_equal(u[~over], w[~over])
        np.testing.assert_allclose(np.linalg.norm(u[over], axis=1), limit, rtol=1e-14)
        w_, u_, s_ = (np.asarray(x[over], np.longdouble) for x in (w, u, s))
        row = np.arange(len(u_)), np.argmax(u_ / np.sqrt(w_) * (s_ > 0), axis=1)
        nu = ((w_ - u_) / (u_ * s_))[row]
        clear = (w_ - u_)[row] > 1e-3 * w_[row]  # else its own rounding decides
        expected = (w_ / (1 + nu[:, None] * s_))[clear]
        np.testing.assert_allclose(u_[clear], expected, rtol=1e-10)


def test_capped_norms_move_what_has_no_step_last() -> None:
    r = MaxNorm(1.0, groups=0)
    steps = np.tile([0.0, 1.0, 3.0], (3, 1))
    w = np.array([[0.6, 3.0, 0.0], [0.3, 0.4, 0.5], [2.0, 5.0, 5.0]])
    found = r.prox(w, steps)
    np.testing.assert_allclose(found, [[0.6, 0.8, 0], [0.3, 0.4, 0.5], [1, 0, 0]], atol=1e-15)
    np.testing.assert_array_equal(found[:2, 0], w[:2, 0])
    np.testing.assert_allclose(r.prox(w, 0 * w), r.prox(w, 1.0), rtol=1e-15)
    assert not MaxNorm(0.0, groups=0).prox(w, steps).any()
    assert not MaxNorm(0.0, groups=0).prox(w, 1.0).any()


@pytest.mark.parametrize("size", [1e-200, 1e-30, 1.0, 1e200])
def test_no_scale_is_too_large_or_too_small(size: float) -> None:
    w = size * np.array([[3.0, 4.0], [0.0, 0.0], [-1.0, 0.0]])
    half = np.sqrt(0.5)
    np.testing.assert_allclose(UnitNorm(groups=0).prox(w, 1.0), [[0.6, 0.8], [half, half], [-1, 0]])
    capped = MaxNorm(2.5 * size, groups=0).prox(w, 1.0)
    np.testing.assert_allclose(capped, size * np.array([[1.5, 2], [0, 0], [-1, 0]]))


def test_a_group_of_zeros_goes_to_equal_elements() -> None:
    groups = [[0], [1, 2, 3, 4], []]
    for r, norm in ((UnitNorm(groups), 1.0), (MinMaxNorm(0.5, 0.8, groups), 0.5)):
        u = r.prox(np.zeros(5), 1.0)
        np.testing.assert_allclose(u, norm * np.array([1, 0.5, 0.5, 0.5, 0.5]))
        assert r(u) == 0
        assert r(np.zeros(5)) == np.inf
    np.testing.assert_array_equal(MinMaxNorm(0, 0.8, groups).prox(np.zeros(5), 1.0), np.zeros(5))


@each_constraint
def test_what_satisfies_it_stays(r: Regularizer) -> None:
    """To rounding; what is defined by bounds alone to the last bit."""
    p = r.prox(sample(), 1.0)
    np.testing.assert_allclose(r.prox(p, 3.0), p, rtol=1e-14, atol=1e-16)
    if isinstance(r, NonNegative | Box):
        np.testing.assert_array_equal(r.prox(p, 3.0), p)


# --- the value ------------------------------------------------------------------------------


@each_constraint
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_what_the_dtype_has_rounded_still_satisfies_it(
    r: Regularizer, framework: str, dtype: str
) -> None:
    make, back, _ = FRAMEWORKS[framework]
    for each in (r, r + L2(0.1)):
        p = each.prox(make(sample(), dtype), 1.0)
        assert dtype in str(p.dtype)
        assert np.isfinite(back(each(p)))
        assert back(each(make(100 * sample(), dtype))) == np.inf
    assert back(r(p)) == 0


@each_constraint
def test_the_value_is_zero_infinite_or_nan(r: Regularizer) -> None:
    p = r.prox(sample(), 1.0)
    assert r(p) == 0
    assert r(-1.001 * p - 0.01) == np.inf
    p[0, 0] = np.nan
    assert np.isnan(r(p))
    p = -np.inf * np.ones((3, 4))
    with np.errstate(invalid="ignore"):
        assert r(p) != 0


def test_a_sign_is_no_matter_of_rounding() -> None:
    assert NonNegative()(np.array([1.0, -1e-300])) == np.inf
    assert NonNegative()(np.array([1.0, -0.0])) == 0
    assert Box(0.1, 0.2)(np.array([0.1, 0.2 * (1 + 1e-15)])) == 0


# --- as Keras has them ----------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, (0, 1), (0, 1, 2)])
def test_they_are_those_of_keras(axis: Any) -> None:
    """Its axis is the one that lies within the groups. It adds 1e-7 to what it divides by."""
    w = np.random.default_rng(0).normal(size=(4, 3, 2, 5))
    within = {axis} if isinstance(axis, int) else set(axis)
    groups = tuple(a for a in range(4) if a not in within)
    of = keras.constraints
    for theirs, ours in (
        (of.MaxNorm(0.9, axis=axis), MaxNorm(0.9, groups=groups)),
        (of.UnitNorm(axis=axis), UnitNorm(groups=groups)),
        (of.MinMaxNorm(0.5, 0.9, axis=axis), MinMaxNorm(0.5, 0.9, groups=groups)),
        (of.NonNeg(), NonNegative()),
    ):
        tensor = tf.constant(w)
        np.testing.assert_allclose(ours.prox(tensor, 1.0), theirs(tensor), rtol=1e-6)


def test_their_configurations_are_plain() -> None:
    assert Box(high=1).get_config() == {"low": -np.inf, "high": 1.0}
    assert MaxNorm(2, groups=blocks("outputs", 3)).get_config() == {
        "max_value": 2.0,
        "groups": {"axis": "outputs", "count": 3},
    }
    assert NonNegative.from_config({}) == NonNegative()


# --- the algebra, and plans -----------------------------------------------------------------


@each_constraint
def test_a_multiple_of_a_constraint_is_the_constraint(r: Regularizer) -> None:
    assert 2 * r == r == r * 0.5 == r.unit() == r.scaled(np.float64(3))
    assert (r + r).split() == (0.0, 0.0, (r,))
    w = sample()
    np.testing.assert_array_equal((r + r).prox(w, 1.0), r.prox(w, 1.0))
    np.testing.assert_array_equal((r * linear(1.0, 0.0, 10)).at(3).prox(w, 1.0), r.prox(w, 1.0))
    assert pickle.loads(pickle.dumps(r)) == r
    assert not r.pull(w).any()


@each_constraint
def test_it_has_no_gradient(r: Regularizer) -> None:
    assert not r.differentiable
    for each in (r, r + L2(0.1), r * linear(1.0, 0.0, 10)):
        with pytest.raises(NoGradientError, match=r'or it jumps\. Use mode="proximal" instead'):
            each.check_gradient("'w'")
    with pytest.raises(NoGradientError):
        (L1(0.1) + r).gradient(sample())


def test_which_sets_are_convex() -> None:
    known = {repr(r): r.weak_convexity for r in ALL}
    assert [known[repr(r)] for r in ALL] == [0.0, 0.0, 0.0, None, None, 0.0]
    assert MinMaxNorm(0, 1).weak_convexity == 0.0
    assert (MaxNorm(1) + L2(0.1)).weak_convexity == 0.0
    assert (UnitNorm() + L2(0.1)).weak_convexity is None


def test_which_take_a_lasso_and_a_step_per_element() -> None:
    w, steps = sample(), np.full((3, 4), 0.1)
    for r in (UnitNorm(groups=0), MinMaxNorm(0.5, 0.8, groups=0), Simplex(groups=0)):
        with pytest.raises(NoProximalOperatorError, match="for an L1 together with"):
            (L1(0.1) + r).prox(w, 1.0)
    for r in (UnitNorm(groups=0), MinMaxNorm(0.5, 0.8, groups=0), GroupMCP(1.0, groups=0)):
        with pytest.raises(NoProximalOperatorError, match="differs from element to element"):
            r.prox(w, steps)
    with pytest.raises(NoProximalOperatorError, match="for an L1 together with"):
        (L1(0.1) + GroupMCP(1.0, groups=0)).prox(w, 1.0)
    with pytest.raises(NoProximalOperatorError, match="together"):
        (MaxNorm(1.0, groups=0) + NonNegative()).prox(w, 1.0)


@pytest.mark.parametrize("make", [MaxNorm, UnitNorm, MinMaxNorm, Simplex])
def test_a_plan_resolves_the_groups(make: Callable[..., Regularizer]) -> None:
    numbers = {MaxNorm: (0.8,), MinMaxNorm: (0.5, 0.8)}.get(make, ())
    place = Place(("kernel",), (3, 4), {"outputs": 1, "inputs": 0})
    assert make(*numbers).resolve(place) == make(*numbers, groups=1)
    assert make(*numbers, groups="inputs").resolve(place) == make(*numbers, groups=0)
    with pytest.raises(GroupsError, match="a bare array has no inputs and outputs"):
        make(*numbers)(sample())
    with pytest.raises(GroupsError, match="there is no such word"):
        make(*numbers, groups="rows")
    assert make(*numbers, groups=0).on_shards == (make is not Simplex)
    assert not make(*numbers, groups=blocks(0, 3)).on_shards


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Box(1, 0), r"Box got low=1 and high=0; expected numbers, the first not greater"),
        (lambda: Box(float("nan"), 0), "Box got low=nan"),
        (lambda: Box(float("inf")), "Box got low=inf and high=inf"),
        (lambda: Box(high=-float("inf")), "high=-inf"),
        (lambda: Box("0", 1), "low='0'"),
        (lambda: MaxNorm(-1), "MaxNorm got max_value=-1; expected a finite number >= 0"),
        (lambda: MaxNorm(float("inf")), "max_value=inf"),
        (lambda: MaxNorm(True), "max_value=True"),
        (lambda: MinMaxNorm(2, 1), "min_value=2 and max_value=1; .* and one that is not less"),
        (lambda: MinMaxNorm(-1, 1), "min_value=-1"),
        (lambda: MinMaxNorm(0, None), "max_value=None"),
        (lambda: Simplex(0), "Simplex got total=0; expected a finite number > 0"),
        (lambda: Simplex(10**400), "total=10000"),
        (lambda: SparseGroupLasso(1.0, 1.5), "SparseGroupLasso got alpha=1.5; .* from 0 to 1"),
        (lambda: SparseGroupLasso(1.0, "outputs"), "alpha='outputs'"),
        (lambda: GroupMCP(1.0, 1), "GroupMCP got gamma=1; expected a finite number > 1"),
        (lambda: GroupMCP(1.0, float("inf")), "gamma=inf"),
    ],
)
def test_bad_numbers(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(RegularizerError, match=message):
        make()


def test_numbers_become_floats() -> None:
    assert type(MaxNorm(np.int64(2)).max_value) is float
    assert Box(0, 1) == Box(0.0, np.float32(1))
    assert repr(Box(-0.0, 1)) == "Box(low=0.0, high=1.0)"
    assert repr(NonNegative()) == "NonNegative()"


def test_bad_arrays() -> None:
    for r in ALL:
        with pytest.raises(ArrayError, match=r"dtype torch\.int64"):
            r(torch.ones((3, 4), dtype=torch.int64))


# --- the other new penalties ----------------------------------------------------------------


def test_a_sparse_group_lasso_is_its_parts() -> None:
    r = SparseGroupLasso(0.4, alpha=0.25, groups=0)
    lasso, ridge, rest = r.split()
    assert (lasso, ridge) == (0.1, 0.0)
    (groups,) = rest
    assert isinstance(groups, GroupLasso)
    assert groups.strength == pytest.approx(0.3)
    w = sample()
    both = L1(0.1) + GroupLasso(0.3, groups=0)
    for step in (0.5, np.random.default_rng(1).uniform(size=w.shape)):
        np.testing.assert_allclose(r.prox(w, step), both.prox(w, step), rtol=1e-14)
        np.testing.assert_allclose((r + both).prox(w, step), (2 * both).prox(w, step), rtol=1e-14)
    at_a_step = (r * linear(1.0, 0.0, 10)).at(torch.tensor(5))
    torch.testing.assert_close(at_a_step(torch.tensor(w)), (0.5 * r)(torch.tensor(w)))


def test_a_group_mcp_leaves_large_groups_alone() -> None:
    r = GroupMCP(0.5, gamma=2.0, groups=0, size_weighted=False)
    w = np.array([[0.3, 0.4], [0.6, 0.8], [3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(r.gradient(w), [[0.15, 0.2], [0, 0], [0, 0], [0, 0]], atol=1e-15)
    soft, firm, hard = (r.prox(w, step) for step in (0.0, 0.8, 5.0))
    np.testing.assert_array_equal(soft, w)
    np.testing.assert_allclose(firm, [[0.1, 0.4 / 3], [0.6, 0.8], [3, 4], [0, 0]])
    np.testing.assert_array_equal(hard, [[0, 0], [0, 0], [3, 4], [0, 0]])
    np.testing.assert_array_equal(r.prox(w, 2.0), [[0, 0], [0, 0], [3, 4], [0, 0]])
    assert r.weak_convexity == 0.5
    assert (3 * r).weak_convexity == 1.5
    assert 3 * r == GroupMCP(0.5, 2.0, 0, False, factor=3.0)
    assert (r + 3 * r).split()[2] == (4 * r,)
    assert r.unit() == GroupMCP(1.0, 2.0, 0, False)


def test_what_pulls_a_group_is_the_mean_slope_on_its_way_to_zero() -> None:
    r = 2 * GroupMCP(0.5, gamma=2.0, groups=0, size_weighted=False)
    w = np.array([[3.0, -4.0], [0.0, 0.0], [0.3, 0.4]])
    pulls = r.pull(w)
    assert (pulls >= 0).all()
    heights = [float(r(row[None])) for row in w]
    np.testing.assert_allclose((pulls * np.abs(w)).sum(1), heights, rtol=1e-14)
