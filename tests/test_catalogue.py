"""What the table of cases does not say of the catalogue: oracles, any shape, messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import minimize

from penalize import (
    L1,
    L2,
    Box,
    ExclusiveLasso,
    FusedLasso,
    GroupLasso,
    GroupMCP,
    GroupsError,
    Hoyer,
    LInf1,
    LogDet,
    MaxNorm,
    MinMaxNorm,
    NoProximalOperatorError,
    NuclearNorm,
    Regularizer,
    RegularizerError,
    ShapeError,
    Simplex,
    Smoothness,
    SoftOrthogonal,
    SparseGroupLasso,
    SpectralNorm,
    UnitNorm,
    blocks,
    kernels,
)
from penalize.regularizers.place import Place
from penalize.torch import regularize

# --- any shape, any strength ----------------------------------------------------------------

ANYWHERE: list[Callable[[float], Regularizer]] = [
    lambda s: SparseGroupLasso(s, groups=0),
    lambda s: GroupMCP(s, groups=0),
    lambda s: LInf1(s, groups=-1),
    lambda s: ExclusiveLasso(s, groups=0),
    lambda s: GroupLasso(s, groups=blocks(0, 1)),
    lambda s: Hoyer(s),
    lambda s: FusedLasso(s),
    lambda s: Smoothness(s, axis=0),
    lambda s: LInf1(s, groups=()) + L2(s),
]
shapes = hnp.array_shapes(min_dims=1, max_dims=5, min_side=0, max_side=3)
strengths = st.floats(0, 1e12) | st.just(0.0)
some_arrays = shapes.flatmap(
    lambda s: hnp.arrays(
        st.sampled_from([np.float32, np.float64]), s, elements=st.sampled_from([0, 1, -2, 0.5])
    )
)


@given(w=some_arrays, make=st.sampled_from(ANYWHERE), strength=strengths)
@settings(max_examples=300)
def test_finite_and_of_its_shape_everywhere(w: np.ndarray, make: Any, strength: float) -> None:
    r = make(strength)
    for array in (w, torch.tensor(w)):
        value = r(array)
        assert value.shape == ()
        assert np.isfinite(float(value))
        for found in (r.gradient(array), r.pull(array)):
            assert tuple(found.shape) == w.shape
            assert np.isfinite(np.asarray(found)).all()
        try:
            p = np.asarray(r.prox(array, 0.3))
        except NoProximalOperatorError:
            continue
        assert p.shape == w.shape
        assert p.dtype == w.dtype
        assert np.isfinite(p).all()


@given(
    w=shapes.flatmap(
        lambda s: hnp.arrays(np.float64, s, elements=st.floats(-10, 10, allow_subnormal=False))
    ),
    r=st.sampled_from(
        [
            Box(-1.0, 0.5),
            MaxNorm(1.0, groups=0),
            UnitNorm(groups=-1),
            MinMaxNorm(0.5, 1.5, groups=()),
            Simplex(groups=0),
        ]
    ),
)
def test_constraints_on_any_shape(w: np.ndarray, r: Regularizer) -> None:
    p = r.prox(w, 0.3)
    assert p.shape == w.shape
    if w.size:
        assert float(r(p)) == 0.0
    np.testing.assert_allclose(r.prox(torch.tensor(w), 0.3).numpy(), p, atol=1e-9)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1), (2, 0, 3), (1, 4)])
@pytest.mark.parametrize(
    "r", [NuclearNorm(0.5, rows=0), SpectralNorm(0.5, rows=0), LogDet(0.5, rows=0)], ids=str
)
def test_empty_and_single_matrices(r: Regularizer, shape: tuple[int, ...]) -> None:
    for w in (np.ones(shape), np.zeros(shape)):
        for array in (w, torch.tensor(w)):
            assert np.isfinite(float(r(array)))
            assert r.gradient(array).shape == array.shape
            if not isinstance(r, LogDet):
                assert r.prox(array, 0.1).shape == array.shape


# --- oracles --------------------------------------------------------------------------------

chains = st.integers(1, 30).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.float64, (2, n), elements=st.floats(-5, 5).map(lambda x: round(x, 2))),
        hnp.arrays(np.float64, (2, n), elements=st.floats(0.01, 3)),
    )
)


@given(chains)
@settings(max_examples=200)
def test_the_fused_lasso_satisfies_its_optimality_conditions(pair: Any) -> None:
    """The sums z of (w − u)/step lie in [−λ, λ], end at 0, and are ±λ where u jumps."""
    w, steps = pair
    for step in (0.7, steps):
        u = FusedLasso(1.0).prox(w, step)
        z = np.cumsum((u - w) / step, axis=1)
        np.testing.assert_allclose(z[:, -1], 0, atol=1e-9)
        inner, jumps = z[:, :-1], np.diff(u, axis=1)
        assert (np.abs(inner) <= 1 + 1e-9).all()
        moved = np.abs(jumps) > 1e-9
        np.testing.assert_allclose(inner[moved], np.sign(jumps[moved]), atol=1e-8)


@pytest.mark.parametrize("each", [False, True])
def test_smoothness_solves_its_linear_system(each: bool) -> None:
    rng = np.random.default_rng(0)
    w = rng.normal(size=(1, 50))
    s = rng.uniform(0.01, 3, size=(1, 50)) if each else np.full((1, 50), 0.8)
    d = np.diff(np.eye(50), axis=0)
    expected = scipy.linalg.solve(np.diag(1 / s[0]) + 0.6 * d.T @ d, w[0] / s[0])
    found = Smoothness(0.3).prox(w, s if each else 0.8)
    np.testing.assert_allclose(found[0], expected, rtol=1e-10)


def test_elements_whose_step_is_zero_stay() -> None:
    w = np.random.default_rng(0).normal(size=(2, 6))
    steps = np.abs(np.random.default_rng(1).normal(size=(2, 6)))
    steps[:, ::2] = 0.0
    for r in (Smoothness(0.5), FusedLasso(0.5), ExclusiveLasso(0.5, groups=0)):
        p = r.prox(w, steps)
        np.testing.assert_allclose(p[:, ::2], w[:, ::2], atol=1e-9)
        assert not np.allclose(p[:, 1::2], w[:, 1::2])


@pytest.mark.parametrize("r", [MaxNorm(1.0, groups=()), Simplex(groups=())], ids=str)
def test_projections_in_the_metric_of_steps(r: Any) -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        w, s = 2 * rng.normal(size=5), np.exp(rng.uniform(-4, 4, size=5))
        ball = {"type": "ineq", "fun": lambda u: 1.0 - (u**2).sum()}
        sums = {"type": "eq", "fun": lambda u: u.sum() - 1.0}
        found = minimize(
            lambda u, w=w, s=s: ((u - w) ** 2 / s).sum() / 2,
            np.full(5, 0.2),
            jac=lambda u, w=w, s=s: (u - w) / s,
            constraints=[ball if isinstance(r, MaxNorm) else sums],
            bounds=None if isinstance(r, MaxNorm) else [(0, None)] * 5,
            method="SLSQP",
            options={"ftol": 1e-15, "maxiter": 1000},
        )
        np.testing.assert_allclose(r.prox(w, s), found.x, atol=2e-4)


def test_power_iteration_comes_from_below_and_repeats() -> None:
    w = np.random.default_rng(0).normal(size=(40, 30))
    exact = float(SpectralNorm(1.0)(w))
    found = [float(SpectralNorm(1.0, iterations=n)(w)) for n in (1, 5, 20, 100)]
    assert found == sorted(found)
    assert found[-1] <= exact * (1 + 1e-12)
    assert found[-1] == pytest.approx(exact, rel=1e-3)
    assert float(SpectralNorm(1.0, iterations=5)(w)) == found[1]
    with pytest.raises(NoProximalOperatorError, match="it is known for the exact norm"):
        SpectralNorm(1.0, iterations=5).prox(w, 1.0)


def test_the_largest_values_share_a_subgradient() -> None:
    gradient = SpectralNorm(1.0).gradient(np.eye(3))
    np.testing.assert_allclose(gradient, 2 / 3 * np.eye(3), atol=1e-12)
    np.testing.assert_allclose(LInf1(3.0, groups=()).gradient(np.array([2.0, -2.0, 1.0])),
                               [1.5, -1.5, 0.0])  # fmt: skip
    np.testing.assert_array_equal(NuclearNorm(1.0).gradient(np.zeros((2, 3))), np.zeros((2, 3)))


def test_a_run_shares_what_pulls_at_its_ends() -> None:
    w = np.array([[0.0, 0.0, 0.0, 1.0, 1.0, -1.0]])
    np.testing.assert_allclose(
        FusedLasso(1.0).gradient(w)[0], [-1 / 3, -1 / 3, -1 / 3, 1.0, 1.0, -1.0]
    )


def test_the_rank_falls() -> None:
    w = np.random.default_rng(0).normal(size=(8, 6))
    p = NuclearNorm(1.0).prox(w, 2.5)
    assert 0 < np.linalg.matrix_rank(p, tol=1e-9) < 6
    assert not NuclearNorm(1.0).prox(w, 100.0).any()


@pytest.mark.parametrize("word", ["outputs", "inputs"])
def test_a_kernel_is_read_by_its_layout(word: str) -> None:
    conv = torch.nn.Conv2d(3, 4, 2).double()
    plan = regularize(conv, {kernels: NuclearNorm(1.0, rows=word)})
    w = conv.weight.detach().numpy()
    matrix = w.reshape(4, -1) if word == "outputs" else w.transpose(1, 0, 2, 3).reshape(3, -1)
    expected = np.linalg.svd(matrix, compute_uv=False).sum()
    assert plan.breakdown() == {"weight": pytest.approx(expected)}


def test_heads_vanish_together() -> None:
    """One group per head of a query projection: 2 heads of 3."""
    layer = torch.nn.Linear(4, 6, bias=False).double()
    with torch.no_grad():
        layer.weight[:3] *= 1e-3
    r = GroupLasso(0.1, groups=blocks("outputs", 2))
    plan = regularize(layer, r)
    (target,) = plan.targets()
    p = target.regularizer.prox(layer.weight.detach(), 0.5)
    assert not p[:3].any()
    assert p[3:].all()


def test_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times as long takes about ten times as many looks at knots, and no second is asserted."""
    from penalize.regularizers import chains

    looks = 0
    line = chains._Message.line

    def counted(message: Any, i: int, places: Any, rows: Any) -> Any:
        nonlocal looks
        looks += len(rows)
        return line(message, i, places, rows)

    monkeypatch.setattr(chains._Message, "line", counted)
    counts = []
    for n in (200, 2000):
        looks = 0
        FusedLasso(1.0).prox(np.random.default_rng(0).normal(size=(1, n)), 1.0)
        counts.append(looks)
    assert counts[1] <= 12 * counts[0]


@pytest.mark.parametrize("large", [1e3, 1e16])
def test_steps_that_differ_by_orders_of_magnitude(large: float) -> None:
    """The mean stays: what the penalties of neighbours take from one they give to the next."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(3, 40))
    for r in (FusedLasso(1.0), Smoothness(1.0)):
        u = r.prox(w, large)
        np.testing.assert_allclose(u.mean(axis=1), w.mean(axis=1), atol=1e-12)
        np.testing.assert_allclose(u, u.mean(axis=1, keepdims=True) + 0 * u, atol=0.03)
    steps = 10 ** rng.uniform(-5, 3, size=w.shape)
    u = FusedLasso(1.0).prox(w, steps)
    z = np.cumsum((u - w) / steps, axis=1)
    np.testing.assert_allclose(z[:, -1], 0, atol=1e-9)
    assert (np.abs(z) <= 1 + 1e-9).all()


# --- messages -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: SparseGroupLasso(1.0, 1.5), RegularizerError, "alpha=1.5; expected a number fro"),
        (lambda: GroupMCP(1.0, 0.5), RegularizerError, "GroupMCP got gamma=0.5"),
        (
            lambda: Box(1, 0),
            RegularizerError,
            "Box got low=1 and high=0; expected numb",
        ),
        (lambda: Box("0", 1), RegularizerError, "Box got low='0' and high=1; expected numbers"),
        (lambda: MaxNorm(-1), RegularizerError, "MaxNorm got max_value=-1; expected a finite"),
        (lambda: MinMaxNorm(2, 1), RegularizerError, "min_value=2 and max_value=1; expected a fin"),
        (lambda: Simplex(-1), RegularizerError, "Simplex got total=-1"),
        (lambda: LogDet(1.0, 0), RegularizerError, "LogDet got epsilon=0"),
        (lambda: SpectralNorm(1.0, 0), RegularizerError, "iterations=0; expected a whole number"),
        (lambda: SpectralNorm(1.0, 2.5), RegularizerError, "iterations=2.5"),
        (lambda: SoftOrthogonal(1.0, "row"), RegularizerError, "mode='row'; expected one of"),
        (lambda: FusedLasso(1.0, axis=0.5), RegularizerError, "axis=0.5; expected a whole number"),
        (lambda: NuclearNorm(1.0, rows=[[0], [1]]), GroupsError, "rows of a matrix are along axes"),
        (lambda: NuclearNorm(1.0, rows=blocks(0, 2)), GroupsError, "name an axis, axes or a word"),
        (lambda: blocks("rows", 2), GroupsError, "there is no such word; write one of"),
        (lambda: blocks(0, 0), GroupsError, "no axis and no number of blocks; write blocks"),
        (lambda: blocks(0.5, 2), GroupsError, r"groups=blocks\(0.5, 2\): these are no axis"),
        (lambda: blocks(0, "2"), GroupsError, r"groups=blocks\(0, '2'\): these are no axis"),
    ],
)
def test_at_construction(make: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        make()


@pytest.mark.parametrize(
    ("r", "shape", "kind", "message"),
    [
        (NuclearNorm(1.0), (3,), ShapeError, "a matrix, or an array with more axes"),
        (SoftOrthogonal(1.0), (), ShapeError, "a matrix, or an array with more axes"),
        (NuclearNorm(1.0, rows=4), (3, 2), GroupsError, "has no such axis"),
        (FusedLasso(1.0, axis=2), (3, 2), ShapeError, "expected one with an axis 2"),
        (Smoothness(1.0), (), ShapeError, "expected one with an axis -1"),
        (
            LInf1(1.0, groups=blocks(0, 2)),
            (3, 2),
            GroupsError,
            "into 2 equal blocks; name a number",
        ),
        (LInf1(1.0, groups=blocks(5, 2)), (4, 2), GroupsError, "has no such axis"),
        (MaxNorm(1.0, groups=2), (3, 2), GroupsError, "has no such axis"),
    ],
    ids=str,
)
def test_where_it_does_not_fit(r: Any, shape: Any, kind: type[Exception], message: str) -> None:
    """In ``regularize``, and on a bare array."""
    with pytest.raises(kind, match=rf"'conv'.*{message}"):
        r.resolve(Place(("conv",), shape, {"outputs": 0, "inputs": 1}))
    for use in (r, *([r.gradient] if r.differentiable else [])):
        with pytest.raises(kind, match=message):
            use(np.ones(shape))


def test_words_on_a_bare_array() -> None:
    with pytest.raises(GroupsError, match="a bare array has no inputs and outputs"):
        NuclearNorm(1.0)(np.ones((2, 2, 2)))
    with pytest.raises(GroupsError, match="a bare array has no inputs and outputs"):
        LInf1(1.0, groups=blocks("outputs", 2))(np.ones((2, 2)))
    with pytest.raises(GroupsError, match="no single axis holds the inputs here"):
        LInf1(1.0, groups=blocks("inputs", 2)).resolve(Place(("w",), (2, 2), {"inputs": None}))


def test_a_fused_lasso_beside_an_l1_has_one_step() -> None:
    both = FusedLasso(1.0) + L1(0.5)
    assert both.prox(np.ones((2, 3)), 0.5).shape == (2, 3)
    with pytest.raises(NoProximalOperatorError, match="differs from element to element"):
        both.check_prox(per_element=True)
    with pytest.raises(NoProximalOperatorError, match="an L1 together with NuclearNorm"):
        (NuclearNorm(1.0) + L1(0.5)).check_prox()
