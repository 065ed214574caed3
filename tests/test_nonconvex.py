"""Penalties that flatten out: against another library, at ties, and for long steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyproximal
import pytest
import scipy.special
import torch
from frameworks import FRAMEWORKS

from penalize import (
    L0,
    L1,
    L2,
    MCP,
    SCAD,
    GroupMCP,
    Hoyer,
    Huber,
    LogSum,
    NoGradientError,
    NoProximalOperatorError,
    Regularizer,
    RegularizerError,
    StrengthError,
    toward,
)
from penalize.steps import SLACK, Step

W = np.concatenate([np.random.default_rng(0).normal(size=200), np.linspace(-4, 4, 81)])
on_each = pytest.mark.parametrize("framework", FRAMEWORKS)


# --- another library ------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0.01, 0.3, 0.9])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (SCAD(0.4), pyproximal.SCAD(0.4, 3.7)),
        (SCAD(0.2, gamma=2.5), pyproximal.SCAD(0.2, 2.5)),
        # Its quadratic envelope of μ·‖·‖₀ is the MCP with γ = 1 and λ = √(2μ).
        (MCP(0.6, gamma=1.0), pyproximal.QuadraticEnvelopeCard(0.18)),
        # Its logarithm is σ/log(γ + 1)·log(1 + γ|w|).
        (LogSum(0.5 / math.log(3.0), epsilon=0.5), pyproximal.Log(0.5, 2.0)),
        (LogSum(3.0 / math.log(5.0), epsilon=0.25), pyproximal.Log(3.0, 4.0)),
    ],
    ids=lambda value: repr(value) if isinstance(value, Regularizer) else type(value).__name__,
)
def test_value_and_prox_are_those_of_pyproximal(
    ours: Regularizer, theirs: Any, step: float
) -> None:
    assert float(ours(W)) == pytest.approx(theirs(W), rel=1e-12)
    np.testing.assert_allclose(ours.prox(W, step), theirs.prox(W, step), atol=1e-12)


def test_huber_is_scipys_and_the_moreau_envelope_of_an_l1() -> None:
    """So its gradient is what the soft threshold takes away."""
    assert float(Huber(0.3, 0.7)(W)) == pytest.approx(0.3 * scipy.special.huber(0.7, W).sum())
    np.testing.assert_allclose(
        Huber(0.3, 0.7).gradient(W), 0.3 * (W - L1(0.7).prox(W, 1.0)), atol=1e-15
    )


# --- long steps, ties, and what lies between ------------------------------------------------


@pytest.mark.parametrize(
    ("r", "step", "tie", "below", "above"),
    [
        (L0(0.5), 4.0, 2.0, 0.0, 2.0),
        (MCP(0.5, gamma=2.0), 8.0, 2.0, 0.0, 2.0),
        (MCP(0.5, gamma=2.0, factor=4.0), 2.0, 2.0, 0.0, 2.0),
        (SCAD(1.0, gamma=3.0), 3.0, 3.5, 0.5, 3.5),
        (SCAD(1.0, gamma=3.0), 9.0, 6.0, 0.0, 6.0),
    ],
    ids=repr,
)
@on_each
def test_a_long_step_jumps_at_the_tie(
    r: Regularizer, step: float, tie: float, below: float, above: float, framework: str
) -> None:
    make, back, _ = FRAMEWORKS[framework]
    assert r.weak_convexity is not None
    assert step * r.weak_convexity > 1
    for sign in (-1, 1):
        w = sign * tie * np.array([1 - 1e-9, 1 + 1e-9])
        for asked in (step, make(np.full(2, step), "float64")):
            p = back(r.prox(make(w, "float64"), asked))
            np.testing.assert_allclose(p, [sign * below, sign * above], rtol=1e-8)
            assert not np.signbit(p[p == 0]).any()


@pytest.mark.parametrize("r", [MCP(0.3), SCAD(0.3), LogSum(0.3, 0.5)], ids=repr)
def test_weak_convexity_is_the_least(r: Regularizer) -> None:
    """prox is continuous, without jumps, for steps below 1/ρ; not for longer ones."""
    grid = np.linspace(0, 3, 300_001)
    assert r.weak_convexity is not None
    for share, jumps in ((0.99, False), (1.3, True)):
        moved = np.diff(r.prox(grid, share / r.weak_convexity))
        assert (moved >= -1e-15).all()
        assert (moved.max() > 0.01) == jumps


@pytest.mark.parametrize("nearly", [-1e-15, 0.0, 1e-15, 1e-9])
def test_where_the_penalty_cancels_the_square_prox_stays_between_0_and_w(nearly: float) -> None:
    for r in (MCP(0.7, gamma=2.9), SCAD(0.7, gamma=3.9), LogSum(0.29, epsilon=0.1)):
        step = (1 + nearly) / r.weak_convexity
        w = 0.7 * 2.9 * np.linspace(1 - 1e-12, 1 + 1e-12, 101)
        for p in (r.prox(w, step), r.prox(w, np.full(w.shape, step))):
            assert (p >= 0).all()
            assert (p <= w).all()


@on_each
def test_a_step_of_zero_leaves_the_largest_and_the_smallest(framework: str) -> None:
    make, back, _ = FRAMEWORKS[framework]
    w = make(np.array([1e30, -1e30, 1e-30, -1e-30, 0.1]), "float32")
    for r in (Huber(0.5), L0(0.5), MCP(0.5), SCAD(0.5), LogSum(0.5)):
        for step in (0, make(np.zeros(5), "float32")):
            assert np.array_equal(back(r.prox(w, step)), back(w))


def test_a_number_without_axes_may_be_the_step_or_the_factor() -> None:
    w = torch.linspace(-3, 3, 41, dtype=torch.float64)
    for r in (Huber(0.5), L0(0.5), MCP(0.5), SCAD(0.5), LogSum(0.5)):
        for step in (0.1, 2.0, 20.0):
            expected = r.prox(w, step)
            number = torch.tensor(step, dtype=torch.float64)
            torch.testing.assert_close(r.prox(w, number), expected)
            torch.testing.assert_close(r.scaled(number).prox(w, 1.0), expected)
            torch.testing.assert_close(r.prox(w, np.float64(step)), expected)


@on_each
def test_pull_is_the_mean_slope(framework: str) -> None:
    make, back, _ = FRAMEWORKS[framework]
    w = np.array([0.0, 0.1, -5.0])
    for r, far in (
        (L0(0.3), 0.3),
        (MCP(0.3, 2.0, 3.0), 3.0 * 2.0 * 0.3**2 / 2),
        (SCAD(0.3, 3.0, 2.0), 2.0 * 4.0 * 0.3**2 / 2),
        (LogSum(0.3, 1.0), 0.3 * math.log(6.0)),
    ):
        pull = back(r.pull(make(w, "float64")))
        assert pull[0] == 0
        assert pull[1] == pytest.approx(float(r(np.array([0.1]))) / 0.1)
        assert pull[2] == pytest.approx(far / 5)


# --- under a step per element ---------------------------------------------------------------


@on_each
@pytest.mark.parametrize("r", [MCP(0.5), SCAD(0.5), LogSum(0.1, 0.2), 2 * MCP(0.5, 4.0)], ids=repr)
def test_a_solution_stays_where_an_optimizer_brings_it_back_to(
    r: Regularizer, framework: str
) -> None:
    """There −∇f is the slope of Ω, and so is the denominator: the update goes 0.01 away from 0.

    MCP(0.5) is nearly flat at 1.45: with a floor of the mean slope its prox stays 0.003 behind.
    """
    make, back, _ = FRAMEWORKS[framework]
    w = np.array([0.2, 1.45, -0.7, 2.5])
    slope = np.abs(r.gradient(w))
    moved = make(w + 0.01 * np.sign(w) * (slope > 0), "float64")
    found = back(r.prox_taken(moved, Step(0.01, make(slope + 1e-12, "float64"))))
    np.testing.assert_allclose(found, w, atol=2e-4)
    near = MCP(0.5)
    assert near.prox(1.46 * np.ones(1), 0.01 * SLACK / near.pull(1.46 * np.ones(1))) > 1.453


def test_zero_stays_until_the_gradient_is_larger_than_the_kink() -> None:
    gradient = np.array([0.49, 0.53])
    found = MCP(0.5).prox_taken(np.full(2, 0.01), Step(0.01, gradient))
    assert found[0] == 0 < found[1]


def test_a_weight_that_the_data_has_not_reached_is_not_erased_by_a_tangent() -> None:
    for r in (MCP(0.5), SCAD(0.5), LogSum(0.1, 0.2), MCP(0.5) + L2(0.1)):
        found = r.prox_taken(np.array([0.5]), Step(1e-3, np.array([1e-8])))
        assert 0.5 - 1.0001 * SLACK * 1e-3 <= found[0] < 0.5


def test_a_group_has_a_tangent_where_it_has_no_prox() -> None:
    r, step = GroupMCP(0.5, groups=0), np.array([[0.01, 0.02]])
    with pytest.raises(NoProximalOperatorError, match="from element to element"):
        r.prox(np.ones((1, 2)), step)
    for each in (r, r + L2(0.1), toward(np.zeros((1, 2)), r)):
        each.check_step(per_element=True)
        assert (each.prox_taken(np.ones((1, 2)), Step(0.01, 1 / step)) <= 1).all()
    flat = np.full((1, 2), 5.0)
    assert (r.prox_taken(flat, Step(0.01, np.full((1, 2), 1e-8))) == flat).all()
    with pytest.raises(NoProximalOperatorError, match="L1 together with"):
        (L1(0.1) + r).prox_taken(flat, Step(0.01, flat))


# --- values, and what is refused ------------------------------------------------------------


def test_a_multiple_is_one_of_the_factor() -> None:
    for kind in (MCP, SCAD):
        assert 2 * kind(0.3, factor=0.5) == kind(0.3)
        assert kind(0.3).unit() == kind(0.7, factor=2.0).unit()
        assert kind(0.3).merged(kind(0.3, factor=2.0)) == kind(0.3, factor=3.0)
        assert kind(0.3).merged(kind(0.2)) is None
        with pytest.raises(NoProximalOperatorError, match=rf"known for {kind.__name__}\(0.3\) \+"):
            (kind(0.3) + kind(0.2)).prox(W, 1.0)
        with pytest.raises(StrengthError, match="factor=-1"):
            kind(0.3, factor=-1)
    assert 2 * LogSum(0.3, 0.5) == LogSum(0.6, 0.5)
    assert (MCP(1.0, 2.0) + L2(1.0) + L0(1.0)).weak_convexity == math.inf


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, 10**400, "1", None, True])
@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda v: Huber(1.0, delta=v), "Huber got delta={}; expected a finite number > 0."),
        (lambda v: MCP(1.0, gamma=v), "MCP got gamma={}; expected a finite number > 0."),
        (lambda v: SCAD(1.0, gamma=v), "SCAD got gamma={}; expected a finite number > 2."),
        (lambda v: LogSum(1.0, epsilon=v), "LogSum got epsilon={}; expected a finite number > 0."),
    ],
)
def test_bad_shapes(make: Callable[[Any], Regularizer], sentence: str, value: Any) -> None:
    with pytest.raises(RegularizerError) as caught:
        make(value)
    assert str(caught.value) == sentence.format(repr(value))


def test_shapes_at_the_bound() -> None:
    with pytest.raises(RegularizerError, match=r"gamma=2; expected a finite number > 2\."):
        SCAD(1.0, gamma=2)
    assert MCP(1, np.float32(0.5)) == MCP(1.0, 0.5)
    assert type(MCP(1, 2).gamma) is float


def test_counting_has_no_gradient_and_a_ratio_no_prox() -> None:
    with pytest.raises(NoGradientError, match=r"L0\(0.3\) has no gradient .* mode=\"proximal\""):
        L0(0.3).gradient(W)
    with pytest.raises(NoProximalOperatorError, match="no closed form is known"):
        Hoyer(0.3).prox(W, 1.0)


@pytest.mark.parametrize("squared", [True, False])
@on_each
def test_hoyer_counts_weights_at_any_scale(squared: bool, framework: str) -> None:
    make, back, _ = FRAMEWORKS[framework]
    r = Hoyer(0.5, squared=squared)
    for scale in (1e-30, 1.0, 1e30):
        w = scale * np.array([1.0, -1.0, 0.0, 1.0, 1.0])
        expected = 0.5 * (4.0 if squared else 2.0)
        assert float(back(r(make(w, "float32")))) == pytest.approx(expected, rel=1e-6)
        one = scale * np.array([0.0, 2.0])
        assert float(back(r(make(one, "float32")))) == pytest.approx(0.5, rel=1e-6)
    # It moves weight among the elements: the gradient is orthogonal to w.
    w = np.random.default_rng(0).normal(size=9)
    assert abs(back(r.gradient(make(w, "float64"))) @ w) < 1e-14


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (1,)])
def test_hoyer_of_any_shape(shape: tuple[int, ...]) -> None:
    for array in (np.full(shape, -2.0), torch.full(shape, -2.0)):
        assert float(Hoyer(0.5)(array)) == (0.5 if array.shape in ((), (1,)) else 0.0)
        assert tuple(Hoyer(0.5).gradient(array).shape) == shape
        assert not Hoyer(0.5).gradient(array).any()
