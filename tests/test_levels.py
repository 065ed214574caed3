"""What sorts a group is right to rounding, however weights and steps differ."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from frameworks import FRAMEWORKS
from test_diagonal import hard_rows

from penalize import L1, ExclusiveLasso, LInf1, Simplex
from penalize.backends import numpy as xp
from penalize.regularizers.levels import level

Exact = list[Fraction]
ROUNDINGS = 8
"""How many rounding errors of the largest weight of a group the result may miss by."""


def exact_root(m: Exact, a: Exact, b: Fraction, c: int) -> Fraction:
    """Where Σ (m − aν)_+ − b − cν goes through 0: between two kinks, or beside them all."""

    def f(nu: Fraction) -> Fraction:
        return sum((max(p - q * nu, Fraction(0)) for p, q in zip(m, a, strict=True)), -b - c * nu)

    kinks = sorted(p / q for p, q in zip(m, a, strict=True) if q)
    ends = [kinks[0] - 1, *kinks, kinks[-1] + 1]
    for low, high in pairwise(ends):
        if f(low) >= 0 > f(high) or (high is ends[-1] and f(high) == 0):
            return low + f(low) * (high - low) / (f(low) - f(high)) if f(low) != f(high) else low
    low, high = (ends[0], ends[1]) if f(ends[0]) < 0 else (ends[-2], ends[-1])
    return low + f(low) * (high - low) / (f(low) - f(high))


def fractions(row: np.ndarray) -> Exact:
    return [Fraction(float(x)) for x in row]


def cut(w: Exact, s: Exact, strength: Fraction) -> Exact:
    """The prox of LInf1 for weights that are not negative."""
    stays = max((p for p, q in zip(w, s, strict=True) if not q), default=Fraction(0))
    moves = [(p, q) for p, q in zip(w, s, strict=True) if q]
    t = (
        exact_root([p / q for p, q in moves], [1 / q for _, q in moves], strength, 0)
        if moves
        else 0
    )
    return [min(p, max(t, stays)) for p in w]


def competing(w: Exact, s: Exact, strength: Fraction) -> Exact:
    """The prox of ExclusiveLasso for weights that are not negative."""
    a = [2 * strength * q for q in s]
    total = exact_root(w, a, Fraction(0), 1) if any(a) else 0
    return [max(p - q * total, Fraction(0)) for p, q in zip(w, a, strict=True)]


def shares(w: Exact, s: Exact, total: Fraction) -> Exact:
    """The projection onto a simplex."""
    root = exact_root(w, s, total, 0)
    return [max(p - q * root, Fraction(0)) for p, q in zip(w, s, strict=True)]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("number", [1e-3, 1.0, 1e3])
def test_exact_to_rounding(size: int, dtype: type, number: float) -> None:
    eps = np.finfo(dtype).eps
    signs = np.sign(np.random.default_rng(1).normal(size=(20, size)))
    for kind, w, s in hard_rows(size, count=20):
        w, s = np.abs(w).astype(dtype), s.astype(dtype)
        checks = [(LInf1(number, 0), cut, w), (ExclusiveLasso(number, 0), competing, w)]
        if kind != "some 0":
            checks.append((Simplex(number, 0), shares, (signs * w).astype(dtype)))
        for r, exactly, x in checks:
            found = r.prox(x, s)
            assert found.dtype == dtype
            for row, steps, u in zip(x, s, found, strict=True):
                expected = exactly(fractions(row), fractions(steps), Fraction(number))
                scale = max(np.abs(row).max(), number if exactly is shares else 0.0)
                errors = np.abs([float(p - q) for p, q in zip(fractions(u), expected, strict=True)])
                assert errors.max() <= ROUNDINGS * eps * scale, (kind, r)


def test_running_sums_alone_round_too_much() -> None:
    """Why there is a step of Newton's method: over many elements they are off, it is not."""
    w = np.random.default_rng(0).uniform(1, 2, size=(1, 300_000)).astype(np.float32)
    b = w.size / 10
    whole = w.astype(np.float64)
    exact = float(level(whole, np.ones_like(whole), b, 0.0, xp)[0, 0])
    falling = np.sort(w)[:, ::-1]
    naive = ((np.cumsum(falling, axis=-1) - np.float32(b)) / np.arange(1, w.size + 1)).max()
    eps = np.finfo(np.float32).eps
    assert abs(naive - exact) > 20 * eps
    assert abs(level(w, np.ones_like(w), b, 0.0, xp)[0, 0] - exact) < 4 * eps


def test_what_the_root_is_where_elements_have_no_slope() -> None:
    """(m)_+ counts where a is 0, whatever the root; padding is m = a = 0."""
    m = np.array([[3.0, 2.0, 0.0], [-1.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    a = np.array([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(level(m, a, 4.0, 0.0, xp)[:2], [[1.0], [-2.0]])
    np.testing.assert_allclose(level(m, a, 0.0, 1.0, xp), [[3.0], [1.0], [0.0]])
    assert level(m[:0], a[:0], 1.0, 0.0, xp).shape == (0, 1)


# --- LInf1 ----------------------------------------------------------------------------------


def tied() -> np.ndarray:
    return np.array([[2.0, -2.0, 1.0, 2.0], [0.0, 0.0, 0.0, 0.0], [1.0, -3.0, 3.0, 0.0]])


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("groups", [0, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]])
def test_at_ties_the_subgradient_has_least_norm(framework: str, groups: object) -> None:
    """The largest share it evenly; autodiff says the same."""
    make, back, differentiate = FRAMEWORKS[framework]
    array = make(tied(), "float64")
    r = LInf1(0.6, groups=groups)
    expected = [[0.2, -0.2, 0, 0.2], [0, 0, 0, 0], [0, -0.3, 0.3, 0]]
    np.testing.assert_allclose(back(r.gradient(array)), expected, rtol=1e-15)
    np.testing.assert_allclose(back(differentiate(r, array)), expected, rtol=1e-15)


def test_the_largest_become_alike_and_groups_vanish() -> None:
    w = np.array([[3.0, -2.0, 0.5], [0.2, -0.3, 0.4]])
    u = LInf1(1.0, groups=0).prox(w, 2.0)
    np.testing.assert_allclose(u, [[1.5, -1.5, 0.5], [0, 0, 0]])
    assert u[0, 0] == -u[0, 1]
    assert not u[1].any()


def test_what_has_no_step_or_no_penalty_stays_to_the_last_bit() -> None:
    w = np.random.default_rng(0).normal(size=(50, 7))
    w[:, 3] = np.nextafter(w[:, 2], 9)
    steps = np.tile([0.0, 1e-8, 1.0, 1.0, 0.0, 30.0, 1e8], (50, 1))
    for r in (LInf1(0.4, groups=0), ExclusiveLasso(0.4, groups=0)):
        u = r.prox(w, steps)
        np.testing.assert_array_equal(u[:, steps[0] == 0], w[:, steps[0] == 0])
        assert (np.abs(u) <= np.abs(w)).all()
        for free in (r.prox(w, 0.0), r.prox(w, 0 * w), (0 * r).prox(w, steps), (0 * r).prox(w, 1)):
            np.testing.assert_array_equal(free, w)


def test_nan_stays_visible_and_in_its_group() -> None:
    for r in (LInf1(0.1, 0), ExclusiveLasso(0.1, 0), Simplex(groups=0)):
        for place in ("weight", "step"):
            w, steps = np.ones((3, 2)), np.full((3, 2), 0.1)
            (w if place == "weight" else steps)[1, 0] = np.nan
            found = np.isnan(r.prox(w, steps))
            np.testing.assert_array_equal(found, [[False, False], [True, True], [False, False]])


@pytest.mark.parametrize("spread", [0.0, 3.0])
def test_the_lasso_goes_first(spread: float) -> None:
    """Optimality of L1 + each, elements one by one: (w − p)/s − (slope of the rest) ∈ a·∂|p|."""
    rng = np.random.default_rng(0)
    a, strength = 0.3, 0.4
    s = 10 ** rng.uniform(-spread, spread, size=(40, 5))
    w = rng.normal(size=s.shape) * s * rng.uniform(0, 3, size=(40, 1))
    p = (L1(a) + ExclusiveLasso(strength, groups=0)).prox(w, s)
    pull = (w - p) / s - 2 * strength * np.abs(p).sum(1, keepdims=True) * np.sign(p)
    scale = 1 + np.abs(w / s)
    np.testing.assert_allclose(((pull - a * np.sign(p)) / scale)[p != 0], 0, atol=1e-12)
    bound = a + 2 * strength * np.abs(p).sum(1, keepdims=True) + 1e-12 * scale
    assert (np.abs(pull) <= bound)[p == 0].all()
    p = (L1(a) + LInf1(strength, groups=0)).prox(w, s)
    top = np.abs(p).max(1, keepdims=True)
    pull = (w - p) / s
    inner = (p != 0) & (np.abs(p) < top)
    np.testing.assert_allclose(((pull - a * np.sign(p)) / scale)[inner], 0, atol=1e-12)
    assert (np.abs(pull) <= a + 1e-12 * scale)[(p == 0) & (top > 0)].all()
    share = np.where(np.abs(p) == top, np.maximum(np.abs(pull) - a, 0), 0).sum(1)
    alive = top[:, 0] > 0
    np.testing.assert_allclose(share[alive], strength, rtol=1e-9)
    assert (share[~alive] <= strength * (1 + 1e-12)).all()


# --- Simplex --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_simplex_is_met_however_large_the_weights_are(dtype: type) -> None:
    rng = np.random.default_rng(0)
    eps = np.finfo(dtype).eps
    for size in (1.0, 1e4, 1e8):
        w = (size * rng.normal(size=(20, 9))).astype(dtype)
        for steps in (1.0, (10 ** rng.uniform(-8, 8, size=w.shape)).astype(dtype)):
            for r in (Simplex(groups=0), Simplex(3e-3, groups=0)):
                u = r.prox(w, steps)
                assert (u >= 0).all()
                np.testing.assert_allclose(u.sum(1, dtype=np.float64), r.total, rtol=8 * eps)
                assert r(u) == 0


def test_on_a_simplex_what_has_no_step_moves_last() -> None:
    r = Simplex(groups=0)
    none, some = [0.0, 0.0, 0.0], [0.0, 1.0, 3.0]
    found = r.prox(
        np.array([[0.3, 2.0, 2.0], [1.5, 1.2, 9.0], [0.6, 0.8, -3.0]]), np.array([some] * 3)
    )
    np.testing.assert_allclose(found[0], [0.3, 0.7, 0.0], rtol=1e-15)
    np.testing.assert_allclose(found[1:], [[1, 0, 0], [0.6, 0.4, 0]], atol=1e-15)
    w = np.array([[0.6, 0.8, -3.0]])
    np.testing.assert_array_equal(r.prox(w, np.array([none])), r.prox(w, 1.0))


def rows_of(groups: Sequence[Sequence[int]], w: np.ndarray) -> list[np.ndarray]:
    return [w.ravel()[list(group)] for group in groups]


def test_groups_of_unequal_sizes_and_of_none() -> None:
    groups = [[4], [0, 2, 3], [], [1, 5]]
    w = np.array([[1.0, -2.0, 0.5], [0.2, 3.0, 0.1]])
    by_rows = rows_of(groups, w)
    for r in (LInf1(0.3, groups), ExclusiveLasso(0.3, groups), Simplex(1.0, groups)):
        alone = type(r)(*[getattr(r, f) for f in ("strength", "total") if hasattr(r, f)], groups=())
        for step in (0.7, np.linspace(0.1, 0.9, 6).reshape(2, 3)):
            found = rows_of(groups, r.prox(w, step))
            steps = rows_of(groups, np.broadcast_to(step, w.shape))
            for u, x, s in zip(found, by_rows, steps, strict=True):
                if x.size:
                    np.testing.assert_allclose(u, alone.prox(x, s if np.ndim(step) else step))
