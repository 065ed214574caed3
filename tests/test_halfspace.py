"""The half-space step against a plain loop in NumPy, and what has no such step."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from halfspace_reference import HalfSpace as Reference

from penalize import (
    EWC,
    L0,
    L1,
    L1L2,
    L2,
    MCP,
    SCAD,
    Custom,
    ExclusiveLasso,
    FusedLasso,
    GroupLasso,
    GroupMCP,
    Hoyer,
    Huber,
    LInf1,
    LogDet,
    LogSum,
    ModeError,
    NoKinkError,
    NonNegative,
    NuclearNorm,
    Regularizer,
    Smoothness,
    SparseGroupLasso,
    SpectralNorm,
    toward,
    warmup,
)
from penalize.backends import numpy as xp
from penalize.halfspace import AVERAGE, HalfSpace, begun, check_average, noted, share_left

GROUPS = [[0, 11], [1, 2, 3, 4], [5], [6, 7, 8, 9, 10]]
ROOTS = [len(g) ** 0.5 for g in GROUPS]
ANCHOR = np.linspace(-1, 1, 12)


def group_mcp(w: np.ndarray) -> np.ndarray:
    """∇ of GroupMCP(0.3, gamma=2) less that of its kinks."""
    found = 0 * w
    for g in GROUPS:
        norm = np.linalg.norm(w[g])
        if norm > 0:
            found[g] = -min(norm / 2, 0.3) * w[g] / norm
    return found


def of_log_sum(w: np.ndarray) -> np.ndarray:
    return np.sign(w) * (0.1 / (np.abs(w) + 0.5) - 0.1 / 0.5)


def of_mcp(w: np.ndarray) -> np.ndarray:
    return np.where(np.abs(w) < 0.6, -w / 2, -0.3 * np.sign(w))


def of_scad(w: np.ndarray) -> np.ndarray:
    slope = np.clip((0.9 - np.abs(w)) / 2, 0, 0.3)
    return np.sign(w) * (slope - 0.3)


grouped = {"groups": GROUPS, "sizes": [0.2 * root for root in ROOTS]}
CASES: list[tuple[Regularizer, dict[str, Any]]] = [
    (L1(0.3), {"element": 0.3}),
    (L1L2(0.3, 0.1), {"element": 0.3, "smooth": lambda w: 0.2 * w}),
    (L1(0.3) + Huber(0.1, 0.5), {"element": 0.3, "smooth": lambda w: 0.1 * np.clip(w, -0.5, 0.5)}),
    (
        L1(0.3) + toward(ANCHOR, L2(0.1)),
        {"element": 0.3, "smooth": lambda w: 0.2 * (w - ANCHOR)},
    ),
    (MCP(0.3, gamma=2.0), {"element": 0.3, "smooth": of_mcp}),
    (SCAD(0.3, gamma=3.0), {"element": 0.3, "smooth": of_scad}),
    (LogSum(0.1, 0.5), {"element": 0.2, "smooth": of_log_sum}),
    (GroupLasso(0.2, groups=GROUPS), grouped),
    (
        GroupLasso(0.3, groups=GROUPS, size_weighted=False),
        {"groups": GROUPS, "sizes": [0.3] * 4},
    ),
    (
        GroupMCP(0.3, gamma=2.0, groups=GROUPS, size_weighted=False),
        {"groups": GROUPS, "sizes": [0.3] * 4, "smooth": group_mcp},
    ),
    (SparseGroupLasso(0.4, alpha=0.5, groups=GROUPS), {**grouped, "element": 0.2}),
    (
        L1(0.1) + GroupLasso(0.2, groups=GROUPS) + L2(0.05),
        {**grouped, "element": 0.1, "smooth": lambda w: 0.1 * w},
    ),
]


@pytest.mark.parametrize(("penalty", "written"), CASES, ids=lambda x: repr(x)[:40])
@pytest.mark.parametrize(("average", "momentum"), [(0.9, 0.0), (0.98, 0.9), (0.0, 0.5)])
def test_against_a_plain_loop(
    penalty: Regularizer, written: dict[str, Any], average: float, momentum: float
) -> None:
    rng = np.random.default_rng(0)
    target = 0.5 * rng.normal(size=12)
    w = np.where(np.arange(12) % 4, rng.normal(size=12), 0.0)  # it came with zeros
    w[5] = 0.0
    reference, ours = Reference(w, average, **written), w
    memory, speed, zeros = begun(w, xp), 0 * w, 0
    for step in range(120):
        g = w - target + 0.3 * rng.normal(size=12)
        if step == 30:
            g[3] = np.inf
        given = reference.before(w, g)
        space = HalfSpace(penalty, ours, average, xp)
        found, memory = space.before(g, memory)
        np.testing.assert_allclose(found, given, atol=1e-10)
        if step != 30:  # it is passed on; the optimizer skips it
            speed = momentum * speed + given
        new = w - 0.1 * speed
        w = reference.after(w, new)
        ours, memory = space.after(new, memory)
        np.testing.assert_array_equal(ours == 0, w == 0)
        np.testing.assert_allclose(ours, w, atol=1e-10)
        zeros += int((w == 0).sum())
    assert 0 < zeros < 120 * 12
    assert np.isfinite(memory.mean).all()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_rate_that_falls_costs_no_groups(momentum: float) -> None:
    """Early steps, with a large gradient and a large rate, outweigh all others in the window."""
    rng, steps, size = np.random.default_rng(0), 600, 0.3
    target = rng.normal(size=(8, 8))
    target /= np.linalg.norm(target, axis=1, keepdims=True)
    target *= np.repeat([[0.6], [0.09]], 4, axis=0)  # the norms are to be 0.3, and 0
    noise, start = 0.3 * rng.normal(size=(steps, 8, 8)), 3 * rng.normal(size=(8, 8))
    penalty = GroupLasso(size, groups=0, size_weighted=False)
    far = {}
    for zeros in (True, False):
        w, memory, speed = start, begun(start, xp), 0 * start
        for step in range(steps):
            g = w - target + noise[step]
            space = HalfSpace(penalty, w, 0.99, xp)
            given, memory = space.before(g, memory)
            speed = momentum * speed + (given if zeros else g + penalty.gradient(w))
            new = w - 0.1 * (1 - momentum) * (1 - step / steps) * speed
            w, memory = space.after(new, memory) if zeros else (new, memory)
        norms = np.linalg.norm(w, axis=1)
        far[zeros] = np.abs(norms[:4] - 0.3).max()
        assert (norms[4:] == 0).all() == zeros
    assert far[True] <= 1.05 * far[False]


def test_zeros_stay_where_they_are_held_and_leave_where_they_are_not() -> None:
    w, space = np.zeros(4), HalfSpace(L1(1.0), np.zeros(4), 0.9, xp)
    given, memory = space.before(np.array([0.5, -0.9, 1.5, -3.0]), begun(w, xp))
    np.testing.assert_allclose(given, [0, 0, 0.5, -2.0])
    found, memory = space.after(np.array([0.1, -0.1, -0.1, 0.1]), memory)
    np.testing.assert_array_equal(found, [0, 0, -0.1, 0.1])
    assert float(share_left(memory, 0.9, xp)) == pytest.approx(0.5)
    moved = space.after(np.array([0.1, -0.1, 0.1, -0.1]), memory)[0]  # by stale momentum
    np.testing.assert_array_equal(moved, 0)


def test_zeros_that_a_weight_came_with_wait_for_a_full_average() -> None:
    """From one noisy gradient most zeros of a sparse model would leave."""
    w = np.array([0.0] * 50 + [1.0] * 50)
    g = np.full(100, 3.0)
    for start, waits in ((w, True), (0 * w, False)):  # a layer of zeros alone is a new one
        memory, left_at = begun(start, xp), []
        for step in range(1, 31):
            given, memory = HalfSpace(L1(1.0), start, 0.95, xp).before(g, memory)
            if given[0] != 0:
                left_at.append(step)
        assert left_at[0] == (20 if waits else 1)


def test_what_is_not_finite_is_passed_on_and_forgotten() -> None:
    w = np.array([1.0, 1.0, 0.0])
    memory = noted(np.array([1.0, 2.0, 0.5]), begun(w, xp), 0.9, xp)
    given, memory = HalfSpace(L1(0.1), w, 0.9, xp).before(np.array([np.nan, np.inf, 0.5]), memory)
    assert np.isnan(given[0])
    assert given[1] == np.inf
    np.testing.assert_allclose(memory.mean / memory.mass, [1.0, 2.0, 0.5])
    found, _ = HalfSpace(L1(0.1), w, 0.9, xp).after(np.array([np.nan, 2.0, 0.0]), memory)
    assert np.isnan(found[0])
    assert found[1] == 2.0


@pytest.mark.parametrize("penalty", [L1(1.0), GroupLasso(1.0, groups=0)])
def test_a_kink_that_is_off_does_nothing(penalty: Regularizer) -> None:
    """As at the first steps of a warm-up."""
    w = np.array([[0.0, 0.0], [1.0, -1.0]])
    for zero in (0.0, np.zeros(())):
        space = HalfSpace(penalty.scaled(zero), w, 0.9, xp)
        g = np.array([[1.0, -2.0], [3.0, 4.0]])
        given, memory = space.before(g, begun(w, xp)._replace(held=np.zeros(())))
        np.testing.assert_array_equal(given, g)
        new = np.array([[0.1, 0.2], [-1.0, 1.0]])
        np.testing.assert_array_equal(space.after(new, memory)[0], new)


def test_tiny_weights_are_no_zeros() -> None:
    """A product of two of them would be 0."""
    w = np.full((1, 2), 1e-200)
    for penalty in (L1(1e-3), GroupLasso(1e-3, groups=0)):
        space = HalfSpace(penalty, w, 0.9, xp)
        _, memory = space.before(np.full((1, 2), -1.0), begun(w, xp))
        assert (space.after(2 * w, memory)[0] == 2 * w).all()


# --- what is refused --------------------------------------------------------------------------

ANY = np.ones((2, 2))
REFUSED: list[tuple[Callable[[], Regularizer], str]] = [
    (lambda: L2(0.1), 'it has no kink at 0, so that it makes no zeros. Use mode="gradient"'),
    (lambda: L1L2(0.0, 0.1), "it has no kink at 0"),
    (lambda: Huber(0.1), "it has no kink at 0"),
    (lambda: Smoothness(0.1), "it has no kink at 0"),
    (lambda: EWC(ANY, ANY), "it has no kink at 0"),
    (lambda: toward(ANY, L2(0.1)), "it has no kink at 0"),
    (lambda: toward(ANY, L1(0.1)), "its kink is at the reference"),
    (lambda: L0(0.1), 'it jumps at 0. Use mode="proximal"'),
    (lambda: NonNegative(), 'it is a constraint. Use mode="proximal"'),
    (lambda: NuclearNorm(0.1), "what becomes 0 is singular values"),
    (lambda: SpectralNorm(0.1), "what becomes 0 is singular values"),
    (lambda: LogDet(0.1), "what becomes 0 is singular values"),
    (lambda: FusedLasso(0.1), "its kinks are where neighbours are equal"),
    (lambda: Hoyer(0.1), "the size of its kink depends on all other weights"),
    (lambda: LInf1(0.1, groups=0), "is not that of a norm"),
    (lambda: ExclusiveLasso(0.1, groups=0), "is not that of a norm"),
    (lambda: Custom(lambda w: w.sum()), "it is not known how sharp it is at 0"),
    (lambda: L1(0.1) + Custom(lambda w: w.sum()), "it is not known how sharp it is at 0"),
    (
        lambda: GroupLasso(0.1, groups=0) + GroupLasso(0.1, groups=1),
        "its groups are of two kinds, which overlap",
    ),
]


@pytest.mark.parametrize(("make", "sentence"), REFUSED)
def test_a_penalty_without_a_known_kink(make: Callable[[], Regularizer], sentence: str) -> None:
    for penalty in (make(), make() * warmup(10)):
        with pytest.raises(NoKinkError, match=re.escape(sentence)) as raised:
            penalty.check_kinks("'0.weight'")
        assert "(on '0.weight')" in str(raised.value)


def test_a_schedule_has_the_kink_of_what_it_scales() -> None:
    (L1(0.1) * warmup(10)).check_kinks()
    assert (L1(0.1) * warmup(10)).at(5).kinks().element == pytest.approx(0.05)


@pytest.mark.parametrize("average", [1, 1.0, -0.1, True, "0.9", float("nan"), None])
def test_an_average_that_is_none(average: Any) -> None:
    with pytest.raises(ModeError, match="expected a number from 0 to below 1"):
        check_average(average)
    assert check_average(np.float32(0.5)) == 0.5
    assert check_average(0) == 0 < AVERAGE
