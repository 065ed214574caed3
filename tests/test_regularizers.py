"""Every regularizer of the table, on every framework, against float64 NumPy."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from cases import CASES, FEW, Case
from frameworks import FRAMEWORKS, Framework, functions
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import minimize

import penalize
from penalize import (
    L0,
    L1,
    L1L2,
    L2,
    MCP,
    SCAD,
    ArrayError,
    ConfigError,
    Constraint,
    ExclusiveLasso,
    GroupLasso,
    GroupMCP,
    GroupsError,
    Huber,
    LInf1,
    LogSum,
    MaxNorm,
    MinMaxNorm,
    NoGradientError,
    NoProximalOperatorError,
    NuclearNorm,
    Orthogonal,
    Regularizer,
    RegularizerError,
    ShapeError,
    Simplex,
    SparseGroupLasso,
    StepError,
    StrengthError,
    Sum,
    UnitNorm,
    blocks,
)
from penalize.regularizers.place import Place

all_cases = pytest.mark.parametrize("case", CASES, ids=str)
PROXIMAL = [
    (case, each)
    for case in CASES
    if case.has_prox
    for each in ([False, True] if case.prox_per_element else [False])
]
smooth_cases = pytest.mark.parametrize(
    "case", [c for c in CASES if c.regularizer.differentiable], ids=str
)
convex_prox = pytest.mark.parametrize(
    ("case", "each"),
    [(case, each) for case, each in PROXIMAL if case.convex],
    ids=[f"{c}-{'steps' if each else 'step'}" for c, each in PROXIMAL if c.convex],
)

TOLERANCE = {"float64": 1e-12, "float32": 1e-6}

NUMPY = Framework(lambda w, dtype: w.astype(dtype), lambda w: np.asarray(w, dtype=np.float64), None)
ALL = {"numpy": NUMPY, **FRAMEWORKS}
on_each = pytest.mark.parametrize("framework", ALL)
NARROW = ("float32", "float16", "bfloat16")


def at_each_width(
    cases: Sequence[tuple[Case, bool]],
    frameworks: Iterable[str] = ALL,
    dtypes: Any = TOLERANCE,
    slow: Collection[str] = ("jax",),
) -> Any:
    """Parameters case, each, framework and dtype: every combination.

    JAX compiles a case anew for each type, and TensorFlow takes its time with each of the many
    operations of a prox. There a narrow type has each class and each kind of groups once, and the
    rest is breadth: the formulas are the same on every framework, and ``test_value`` and
    ``test_jax_gives_the_type_that_it_got`` ask what a type adds.
    """
    return pytest.mark.parametrize(
        ("case", "each", "framework", "dtype"),
        [
            pytest.param(
                case,
                each,
                framework,
                dtype,
                id=f"{dtype}-{framework}-{case}{'-steps' if each else ''}",
                marks=pytest.mark.breadth
                if framework in slow and dtype in NARROW and case not in FEW
                else (),
            )
            for dtype in dtypes
            for framework in frameworks
            for case, each in cases
        ],
    )


SLOW_PROX = ("jax", "tensorflow")


def once(cases: Iterable[Case]) -> list[tuple[Case, bool]]:
    """For what is not asked with a step per element."""
    return [(case, False) for case in cases]


def weights(case: Case, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=case.shape)


def with_zeros(case: Case) -> np.ndarray:
    """A whole first row of zeros, so that groups of zeros and single zeros both occur."""
    w = weights(case)
    w[0] = 0.0
    w[-1].flat[0] = 0.0
    return w


# --- value ----------------------------------------------------------------------------------


@at_each_width(once(CASES))
def test_value(case: Case, each: bool, framework: str, dtype: str) -> None:
    make, back, _ = ALL[framework]
    r = functions(case.regularizer, framework)
    for w in (weights(case), with_zeros(case), np.zeros(case.shape)):
        value = r.value(make(w, dtype))
        assert value.shape == ()
        assert dtype in str(value.dtype)
        # The reference sees what the framework sees: w rounded to its dtype.
        expected = case.reference(back(make(w, dtype)))
        np.testing.assert_allclose(back(value), expected, rtol=TOLERANCE[dtype], atol=1e-300)


@at_each_width(once(c for c in CASES if c.feasible is None), FRAMEWORKS, ["float16", "bfloat16"])
def test_half_precision_is_reduced_wide(case: Case, each: bool, framework: str, dtype: str) -> None:
    make, back, _ = FRAMEWORKS[framework]
    r = functions(case.regularizer, framework)
    array = make(case.scale * weights(case), dtype)  # squares of 300 overflow float16
    value = r.value(array)
    assert "float32" in str(value.dtype)
    np.testing.assert_allclose(back(value), case.reference(back(array)), rtol=1e-5)
    if case.regularizer.differentiable:
        gradient = r.gradient(array)
        assert gradient.dtype == array.dtype
        assert np.isfinite(back(gradient)).all()


# --- gradient -------------------------------------------------------------------------------


@all_cases
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_jax_gives_the_type_that_it_got(case: Case, dtype: str) -> None:
    """Traced, not compiled: what the narrow types add to ``float64``."""
    import jax

    r, w = case.regularizer, jax.ShapeDtypeStruct(case.shape, dtype)
    assert jax.eval_shape(r, w).dtype == "float32"
    if r.differentiable:
        assert jax.eval_shape(r.gradient, w) == w
    if case.has_prox:
        assert jax.eval_shape(r.prox, w, 0.5) == w
    if case.has_prox and case.prox_per_element:
        assert jax.eval_shape(r.prox, w, w) == w


def finite_difference(f: Callable[[np.ndarray], float], w: np.ndarray) -> np.ndarray:
    gradient = np.empty_like(w)
    for index in np.ndindex(w.shape):
        step = np.zeros_like(w)
        step[index] = 1e-6
        gradient[index] = (f(w + step) - f(w - step)) / 2e-6
    return gradient


@smooth_cases
def test_gradient_away_from_kinks(case: Case) -> None:
    w = weights(case)
    found = finite_difference(case.reference, w)
    np.testing.assert_allclose(case.regularizer.gradient(w), found, atol=2e-6)


@at_each_width(once(c for c in CASES if c.regularizer.differentiable), FRAMEWORKS)
def test_gradient_is_that_of_numpy(case: Case, each: bool, framework: str, dtype: str) -> None:
    make, back, _ = ALL[framework]
    r = functions(case.regularizer, framework)
    for w in (weights(case), with_zeros(case), np.zeros(case.shape)):
        array = make(w, dtype)
        gradient = r.gradient(array)
        assert gradient.shape == array.shape
        assert gradient.dtype == array.dtype
        expected = case.regularizer.gradient(back(array))
        atol = 20 * TOLERANCE[dtype] * max(1.0, float(np.abs(expected).max(initial=0.0)))
        np.testing.assert_allclose(back(gradient), expected, rtol=0, atol=atol)


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.kinks_at_zero and c.regularizer.differentiable], ids=str
)
def test_gradient_at_kinks_has_least_norm(case: Case) -> None:
    """At 0, zero is a subgradient of every penalty here, and the shortest one."""
    assert not case.regularizer.gradient(np.zeros(case.shape)).any()
    w = with_zeros(case)
    gradient = case.regularizer.gradient(w)
    assert not gradient[w == 0].any()
    # Elsewhere the penalty is smooth in each single element that is not zero.
    smooth = finite_difference(case.reference, w)
    np.testing.assert_allclose(gradient[w != 0], smooth[w != 0], atol=2e-6)


@on_each
def test_orthogonal_vectors_are_left_alone(framework: str) -> None:
    """Their cosine has its kink at 0; a row of zeros, or a single row, has no cosine."""
    make, back, _ = ALL[framework]
    for w in (np.eye(3), np.zeros((3, 2)), np.array([[3.0, 4.0]])):
        array = make(w, "float64")
        assert back(Orthogonal(1.0)(array)) == 0.0
        assert not back(Orthogonal(1.0).gradient(array)).any()


@smooth_cases
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_autodiff_gives_the_same_gradient(case: Case, framework: str) -> None:
    make, back, _ = FRAMEWORKS[framework]
    r = functions(case.regularizer, framework)
    for w in (weights(case), with_zeros(case), np.zeros(case.shape)):
        array = make(w, "float64")
        found = back(r.derivative(array))
        expected = back(r.gradient(array))
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


# --- proximal operator ----------------------------------------------------------------------


Step = float | np.ndarray


def proximity(u: np.ndarray, w: np.ndarray, step: Step) -> float:
    return 0.5 * float(((u - w) ** 2 / step).sum())


def objective(case: Case, w: np.ndarray, step: Step) -> Callable[[np.ndarray], float]:
    return lambda u: proximity(u, w, step) + case.reference(u)


def one_for_each(case: Case) -> np.ndarray:
    """A step for each element, over two orders of magnitude."""
    return np.exp(np.random.default_rng(3).uniform(-4, 1, size=case.shape))


def starts(case: Case) -> list[np.ndarray]:
    return [weights(case), with_zeros(case), 5.0 * weights(case, 4), np.zeros(case.shape)]


@at_each_width(PROXIMAL, FRAMEWORKS, slow=SLOW_PROX)
def test_prox_is_that_of_numpy(case: Case, each: bool, framework: str, dtype: str) -> None:
    make, back, _ = ALL[framework]
    r = functions(case.regularizer, framework)
    for w in starts(case):
        array = make(w, dtype)
        for step in (0.01, 0.5, 3.0):
            steps = make(step * one_for_each(case), dtype) if each else step
            found = r.prox(array, steps)
            assert found.shape == array.shape
            assert found.dtype == array.dtype
            expected = case.regularizer.prox(back(array), back(steps) if each else step)
            atol = 20 * TOLERANCE[dtype] * max(1.0, float(np.abs(w).max(initial=0.0)))
            np.testing.assert_allclose(back(found), expected, rtol=0, atol=atol)


@convex_prox
@pytest.mark.parametrize("step", [0.01, 0.5, 3.0])
def test_prox_is_the_minimum(case: Case, each: bool, step: float) -> None:
    """p minimises the strongly convex F iff F(u) ≥ F(p) + ½ Σ (u − p)²/step for all u."""
    rng = np.random.default_rng(1)
    steps = step * one_for_each(case) if each else step
    for w in starts(case):
        p = case.regularizer.prox(w, steps)
        f = objective(case, w, steps)
        if case.feasible is None:
            scales = [scale for scale in (1e-4, 1e-2, 1.0) for _ in range(20)]
            others = [
                p + s * rng.normal(size=p.shape) * rng.integers(0, 2, p.shape) for s in scales
            ]
        else:
            others = [case.feasible(rng) for _ in range(40)]
            others += [p + t * (u - p) for u in others for t in (1e-4, 1e-2)]
        for u in others:
            assert f(u) >= (f(p) + proximity(u, p, steps)) * (1 - 1e-12) - 1e-12


@at_each_width(
    [(c, e) for c, e in PROXIMAL if isinstance(c.regularizer, Constraint)], slow=SLOW_PROX
)
def test_prox_of_a_constraint_satisfies_it(
    case: Case, each: bool, framework: str, dtype: str
) -> None:
    make, back, _ = ALL[framework]
    r = functions(case.regularizer, framework)
    steps = make(one_for_each(case), dtype) if each else 1.0
    for w in starts(case):
        p = r.prox(make(w, dtype), steps)
        assert back(r.value(p)) == 0.0
        as_it_is = r.prox(make(w, dtype), 0)
        once = r.prox(make(w, dtype), 1.0)
        np.testing.assert_array_equal(back(as_it_is), back(once))
        again = r.prox(p, steps)
        np.testing.assert_allclose(back(again), back(p), atol=10 * TOLERANCE[dtype])
    assert back(r.value(make(100.0 * weights(case), dtype))) == np.inf
    with pytest.raises(NoGradientError, match='Use mode="proximal"'):
        case.regularizer.gradient(make(weights(case), dtype))


@pytest.mark.parametrize(("case", "each"), [(c, e) for c, e in PROXIMAL if not c.convex], ids=str)
@pytest.mark.parametrize("step", [0.01, 0.5, 3.0, 30.0])
def test_prox_is_a_global_minimum(case: Case, each: bool, step: float) -> None:
    """None lower near it, far from it, on the way to 0, to w, or with elements at 0 or at w."""
    rng = np.random.default_rng(1)
    steps = step * one_for_each(case) if each else step
    for w in starts(case):
        p = case.regularizer.prox(w, steps)
        f = objective(case, w, steps)
        if case.feasible is not None:
            others = [case.feasible(rng) for _ in range(40)]
        else:
            near = [p + s * rng.normal(size=p.shape) for s in (1e-4, 1e-2, 1.0) for _ in range(10)]
            rays = [t * x for x in (w, p) for t in np.linspace(0, 1.2, 61)]
            picks = [rng.integers(0, 3, p.shape) for _ in range(20)]
            others = near + rays + [np.choose(pick, [0 * p, w, p]) for pick in picks]
            for index in np.ndindex(p.shape):  # each element alone, on a grid
                for value in np.linspace(-0.1, 1.1, 61) * w[index]:
                    u = p.copy()
                    u[index] = value
                    others.append(u)
        for u in others:
            assert f(u) >= f(p) * (1 - 1e-12) - 1e-12


@pytest.mark.parametrize(
    ("case", "each"), [(c, e) for c, e in PROXIMAL if c.convex and c.feasible is None], ids=str
)
def test_prox_against_a_brute_force_minimum(case: Case, each: bool) -> None:
    w = weights(case)
    step = one_for_each(case) if each else 0.8
    f = objective(case, w, step)
    found = minimize(
        lambda flat: f(flat.reshape(w.shape)),
        w.ravel(),
        method="Powell",
        options={"xtol": 1e-9, "ftol": 1e-14, "maxiter": 20_000},
    )
    p = case.regularizer.prox(w, step)
    assert f(p) <= found.fun + 1e-9


@at_each_width(once(c for c in CASES if c.has_prox and c.feasible is None))
def test_prox_with_step_zero_is_the_identity(
    case: Case, each: bool, framework: str, dtype: str
) -> None:
    make, back, _ = ALL[framework]
    r = functions(case.regularizer, framework)
    array = make(with_zeros(case), dtype)
    result = r.prox(array, 0)
    assert result.dtype == array.dtype
    assert np.array_equal(back(result), back(array))


@convex_prox
def test_prox_is_firmly_nonexpansive(case: Case, each: bool) -> None:
    """In the metric of the steps."""
    step = one_for_each(case) if each else 0.6
    a, b = weights(case, 1), weights(case, 2)
    pa, pb = case.regularizer.prox(a, step), case.regularizer.prox(b, step)
    assert ((pa - pb) ** 2 / step).sum() <= ((pa - pb) * (a - b) / step).sum() + 1e-12


@at_each_width([(case, each) for case, each in PROXIMAL if each], slow=SLOW_PROX)
def test_equal_steps_for_all_elements_are_one_step(
    case: Case, each: bool, framework: str, dtype: str
) -> None:
    make, back, _ = ALL[framework]
    r = functions(case.regularizer, framework)
    for w in (with_zeros(case), np.zeros(case.shape)):
        for step in (0.0, 0.5, 3.0):
            array = make(w, dtype)
            found = r.prox(array, make(np.full(case.shape, step), dtype))
            expected = back(r.prox(array, step))
            np.testing.assert_allclose(back(found), expected, rtol=0, atol=TOLERANCE[dtype])
            np.testing.assert_array_equal(back(found) == 0, expected == 0)


@pytest.mark.parametrize(
    "case",
    [c for c in CASES if c.regularizer.elementwise and c.has_prox and c.prox_per_element],
    ids=str,
)
def test_prox_of_a_sum_over_elements_takes_each_with_its_own_step(case: Case) -> None:
    w, steps = weights(case), one_for_each(case)
    together = case.regularizer.prox(w, steps)
    for index in np.ndindex(w.shape):
        alone = case.regularizer.prox(w, float(steps[index]))[index]
        assert together[index] == pytest.approx(alone, abs=1e-14)


@on_each
@pytest.mark.parametrize(
    "regularizer", [L1(0.5), L1L2(0.5, 0.1), L1(0.5) + GroupLasso(0.1, groups=0)], ids=repr
)
def test_zeros_are_exact_and_positive(regularizer: Regularizer, framework: str) -> None:
    make, back, _ = ALL[framework]
    w = np.array([[0.3, -0.3, 0.5, -0.5], [2.0, -2.0, 0.0, 0.4]])
    p = back(regularizer.prox(make(w, "float64"), 1.0))
    assert (p[0] == 0).all()
    assert not np.signbit(p[0]).any()
    assert p[1, 0] > 0 > p[1, 1]


@on_each
def test_groups_vanish_together(framework: str) -> None:
    make, back, _ = ALL[framework]
    w = np.array([[0.3, -0.4], [3.0, -4.0], [0.0, 0.0]])
    p = back(GroupLasso(1.0, groups=0, size_weighted=False).prox(make(w, "float64"), 0.5))
    np.testing.assert_allclose(p, [[0, 0], [2.7, -3.6], [0, 0]])
    assert (p[0] == 0).all()


@all_cases
@on_each
def test_nan_stays_visible(case: Case, framework: str) -> None:
    make, back, _ = ALL[framework]
    r = functions(case.regularizer, framework)
    w = weights(case)
    w.flat[0] = np.nan
    if case.nan_raises and framework in ("numpy", "torch"):
        with pytest.raises((np.linalg.LinAlgError, torch.linalg.LinAlgError)):
            r.value(make(w, "float64"))
        return
    assert np.isnan(back(r.value(make(w, "float64"))))
    if case.has_prox:
        assert np.isnan(back(r.prox(make(w, "float64"), 0.1)).flat[0])


@all_cases
def test_prox_is_refused_where_it_is_not_exact(case: Case) -> None:
    """Before anything is computed, by a plan that is attached too."""
    w = weights(case)
    for each in (False, True):
        known = case.has_prox and (case.prox_per_element or not each)
        if known:
            case.regularizer.check_prox(per_element=each)
            continue
        with pytest.raises(NoProximalOperatorError, match="never approximated"):
            case.regularizer.check_prox(per_element=each)
        with pytest.raises(NoProximalOperatorError):
            case.regularizer.prox(w, one_for_each(case) if each else 1.0)


def test_prox_of_an_unknown_sum_is_refused_and_names_the_way_out() -> None:
    both = GroupLasso(0.2, groups=0) + GroupLasso(0.2, groups=1)
    with pytest.raises(NoProximalOperatorError) as caught:
        both.prox(np.ones((2, 2)), 1.0)
    assert 'mode="gradient"' in str(caught.value)
    assert "never approximated" in str(caught.value)
    assert "GroupLasso(0.2, groups=0) + GroupLasso(0.2, groups=1) together" in str(caught.value)


def test_prox_of_a_regularizer_without_one_is_refused() -> None:
    class Quartic(Regularizer):
        strengths = ()

        def _value(self, w: Any, xp: Any) -> Any:
            return xp.sum(w**4)

        def _gradient(self, w: Any, xp: Any) -> Any:
            return 4 * w**3

    assert Quartic()(np.array([2.0])) == 16
    with pytest.raises(NoProximalOperatorError, match="no closed form is known"):
        Quartic().prox(np.ones(2), 1.0)
    with pytest.raises(NoProximalOperatorError, match="L1 together with"):
        (L1(1.0) + Quartic()).prox(np.ones(2), 1.0)


def test_prox_that_is_known_for_one_step_alone_takes_no_array_of_them() -> None:
    class Norm(GroupLasso):
        def _why_not_prox(self, per_element: bool) -> str:
            return Regularizer._why_not_prox(self, per_element)

    norm = Norm(1.0, groups=())
    for r in (norm, L1(0.1) + norm, L2(0.1) + norm):
        assert r.prox(np.ones(2), 0.1).all()
        with pytest.raises(NoProximalOperatorError, match="from element to element, and it is k"):
            r.prox(np.ones(2), np.ones(2))


@pytest.mark.parametrize("step", [-1.0, float("nan"), float("inf"), "1", None])
def test_bad_step(step: Any) -> None:
    with pytest.raises(StepError, match="step="):
        L1(1.0).prox(np.ones(2), step)


def test_step_of_another_framework() -> None:
    with pytest.raises(StepError, match="for a w that is a Tensor"):
        L1(1.0).prox(torch.ones(2), np.ones(2))
    with pytest.raises(ArrayError, match=r"a builtins\.list"):
        L1(1.0).prox([1.0], np.ones(1))


def test_a_half_step_is_widened() -> None:
    step = torch.full((2,), 60_000.0, dtype=torch.float16)
    assert not L1(2.0).prox(torch.tensor([1e4, -1e4]), step).any()


def test_step_of_another_shape() -> None:
    with pytest.raises(StepError, match=r"shape \(3,\) for a w of \(2,\)"):
        L1(1.0).prox(np.ones(2), np.ones(3))


# --- any shape ------------------------------------------------------------------------------

shapes = hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=3)
arrays = shapes.flatmap(
    lambda s: hnp.arrays(np.float64, s, elements=st.floats(-1e3, 1e3, allow_subnormal=False))
)
elementwise = st.sampled_from(
    [
        L1(0.5),
        L2(0.5),
        L1L2(0.5, 0.25),
        L1(0.5) + L2(0.25),
        Huber(0.5, 2.0),
        MCP(0.5),
        SCAD(0.5),
        LogSum(0.5),
        LogSum(0.5, epsilon=50.0),
    ]
)
steps = st.floats(0, 1e3)


@given(w=arrays, r=elementwise, step=steps)
def test_elementwise_on_any_shape(w: np.ndarray, r: Regularizer, step: float) -> None:
    tensor = torch.tensor(w)
    assert float(r(tensor)) == pytest.approx(float(r(w)), rel=1e-12)
    np.testing.assert_allclose(r.gradient(tensor).numpy(), r.gradient(w))
    p = r.prox(tensor, step).numpy()
    np.testing.assert_allclose(p, r.prox(w, step), rtol=1e-12)
    assert p.shape == w.shape
    assert np.isfinite(p).all()
    assert (np.abs(p) <= np.abs(w)).all()


@given(data=st.data(), step=steps)
def test_groups_along_any_axes(data: st.DataObject, step: float) -> None:
    w = data.draw(arrays.filter(lambda a: a.ndim > 0))
    axes = data.draw(st.sets(st.integers(-w.ndim, w.ndim - 1)).map(tuple))
    r = GroupLasso(0.5, groups=axes)
    within = tuple(a for a in range(w.ndim) if a not in {x % w.ndim for x in axes})
    size = int(np.prod([w.shape[a] for a in within]))
    expected = 0.5 * np.sqrt(size) * np.sqrt((w**2).sum(axis=within)).sum()
    assert float(r(w)) == pytest.approx(float(expected), rel=1e-9)
    assert float(r(torch.tensor(w))) == pytest.approx(float(expected), rel=1e-9)
    for array in (r.gradient(w), r.prox(w, step), r.gradient(torch.tensor(w)).numpy()):
        assert array.shape == w.shape
        assert np.isfinite(array).all()


GROUPED: list[Callable[[Any], Regularizer]] = [
    lambda groups: GroupLasso(0.5, groups),
    lambda groups: SparseGroupLasso(0.5, groups=groups),
    lambda groups: GroupMCP(0.5, groups=groups),
    lambda groups: LInf1(0.5, groups),
    lambda groups: ExclusiveLasso(0.5, groups),
    lambda groups: MaxNorm(2.0, groups),
    lambda groups: MinMaxNorm(0.0, 2.0, groups),
    lambda groups: UnitNorm(groups),
    lambda groups: Simplex(2.0, groups),
]
each_grouped = pytest.mark.parametrize("make", GROUPED, ids=[repr(make(0)) for make in GROUPED])


@each_grouped
@given(data=st.data(), step=steps)
def test_any_groups_of_any_shape(
    make: Callable[[Any], Regularizer], data: st.DataObject, step: float
) -> None:
    """Axes, blocks, and partitions with empty groups; of arrays without elements, too."""
    w = data.draw(arrays)
    w = np.where(np.abs(w) > 1e-100, w, 0.0)  # whose squares do not vanish
    kind = data.draw(st.sampled_from(["axes", "blocks", "partition"]))
    if kind == "partition":
        ids = data.draw(st.lists(st.integers(0, 3), min_size=w.size, max_size=w.size))
        groups: Any = [[i for i, own in enumerate(ids) if own == group] for group in range(4)]
    elif kind == "axes" or not w.ndim:
        axes = st.sets(st.integers(-w.ndim, w.ndim - 1)) if w.ndim else st.just(set())
        groups = data.draw(axes.map(tuple))
    else:
        axis = data.draw(st.integers(0, w.ndim - 1))
        counts = [n for n in (1, 2, 3) if w.shape[axis] % n == 0]
        groups = blocks(axis, data.draw(st.sampled_from(counts)))
    r = make(groups)
    each = data.draw(hnp.arrays(np.float64, w.shape, elements=steps))
    each = np.where(each > 1e-100, each, 0.0)
    asked = [step] if isinstance(r, UnitNorm | GroupMCP) else [step, each]
    for s in asked:
        p = r.prox(w, s)
        assert p.shape == w.shape
        assert np.isfinite(p).all()
        same = r.prox(torch.tensor(w), torch.tensor(s) if s is each and w.ndim else step)
        if not (s is each and not w.ndim):
            np.testing.assert_allclose(same, p, rtol=1e-9, atol=1e-9)
        if isinstance(r, Constraint):
            assert r(p) == 0.0
        else:
            assert (np.abs(p) <= np.abs(w)).all()
    if not isinstance(r, Constraint):
        assert float(r(w)) == pytest.approx(float(r(torch.tensor(w))), rel=1e-9)
        gradient = r.gradient(w)
        np.testing.assert_allclose(r.gradient(torch.tensor(w)), gradient, rtol=1e-9)
        assert gradient.shape == w.shape
        np.testing.assert_array_equal(r.prox(w, 0.0), w)


@each_grouped
@given(data=st.data())
def test_a_partition_equals_the_axis_it_spells_out(
    make: Callable[[Any], Regularizer], data: st.DataObject
) -> None:
    w = data.draw(hnp.arrays(np.float64, (3, 4), elements=st.floats(-10, 10)))
    rows, by_axis = make([[4 * i + j for j in range(4)] for i in range(3)]), make(0)
    for array in (w, torch.tensor(w)):
        np.testing.assert_allclose(rows.prox(array, 0.3), by_axis.prox(array, 0.3), atol=1e-13)
        if not by_axis.differentiable:
            continue
        assert float(rows(array)) == pytest.approx(float(by_axis(array)), rel=1e-12)
        np.testing.assert_allclose(rows.gradient(array), by_axis.gradient(array))


# --- the value object -----------------------------------------------------------------------


@pytest.mark.parametrize("case", [c for c in CASES if c.saved], ids=str)
def test_config_round_trip_through_json(case: Case) -> None:
    config = json.loads(json.dumps(case.regularizer.get_config()))
    assert type(case.regularizer).from_config(config) == case.regularizer


@pytest.mark.parametrize("case", [c for c in CASES if c.typed], ids=str)
def test_repr_can_be_typed_in_again(case: Case) -> None:
    public = {name: getattr(penalize, name) for name in penalize.__all__}
    assert eval(repr(case.regularizer), public) == case.regularizer


@all_cases
def test_is_a_value(case: Case) -> None:
    again = pickle.loads(pickle.dumps(case.regularizer)) if case.saved else case.regularizer
    assert again == case.regularizer
    assert hash(again) == hash(case.regularizer)
    with pytest.raises(AttributeError):
        case.regularizer.strength = 1.0


def test_readable_repr() -> None:
    assert repr(L1(1e-4)) == "L1(0.0001)"
    assert repr(L1L2(l2=0.1)) == "L1L2(l2=0.1)"
    assert repr(GroupLasso(1e-3)) == "GroupLasso(0.001)"
    assert repr(GroupLasso(1e-3, "inputs")) == "GroupLasso(0.001, groups='inputs')"
    assert repr(L1(1.0) + L2(2.0)) == "L1(1.0) + L2(2.0)"


def test_algebra() -> None:
    assert 2 * L1(0.1) == L1(0.2) == L1(0.1) * 2
    assert np.float64(2) * L1L2(0.1, 0.2) == L1L2(0.2, 0.4)
    assert 2 * GroupLasso(0.1, groups=1) == GroupLasso(0.2, groups=1)
    assert (L1(1) + L2(2)) + L1(3) == L1(1) + (L2(2) + L1(3)) == Sum((L1(1), L2(2), L1(3)))
    assert sum([L1(1), L2(2)]) == L1(1) + L2(2)
    for bad in ("2", None, object()):
        with pytest.raises(TypeError):
            L1(1.0) * bad
        with pytest.raises(TypeError):
            L1(1.0) + bad
        with pytest.raises(TypeError):
            (L1(1.0) + L2(1.0)) * bad
    with pytest.raises(StrengthError, match="factor=-1"):
        -1 * L1(1.0)


def test_units() -> None:
    """The numbers that Keras documents: x = [[1, −2], [3, 4]]."""
    x = np.array([[1.0, -2.0], [3.0, 4.0]])
    assert L1(0.01)(x) == pytest.approx(0.1)
    assert L2(0.01)(x) == pytest.approx(0.3)
    assert L2.from_weight_decay(0.01) == L2(0.005)
    np.testing.assert_allclose(L2.from_weight_decay(0.01).gradient(x), 0.01 * x)
    assert L2.from_half(0.01) == L2(0.005)
    assert float(L2.from_half(0.01)(x)) == pytest.approx(0.01 * float((x**2).sum()) / 2)
    assert L2.from_weight_decay(0.01).weight_decay == 0.01


@pytest.mark.parametrize("strength", [1, 0, 1.5, np.float32(0.5), np.int64(2), np.float64(1e-300)])
def test_good_strengths(strength: Any) -> None:
    assert L1(strength) == L1(float(strength))
    assert type(L1(strength).strength) is float


@pytest.mark.parametrize(
    "strength",
    [
        -1e-9,
        10**400,
        float("nan"),
        float("inf"),
        -float("inf"),
        "1e-4",
        None,
        1j,
        True,
        [1],
        torch.tensor(1),
    ],
)
@pytest.mark.parametrize(
    "make", [L1, L2, GroupLasso, L2.from_weight_decay, L2.from_half, lambda s: L1L2(l2=s)]
)
def test_bad_strengths(strength: Any, make: Callable[[Any], Any]) -> None:
    with pytest.raises(StrengthError, match="expected a finite number >= 0") as caught:
        make(strength)
    assert isinstance(caught.value, ValueError)
    assert repr(strength) in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Huber(1.0, delta=0.0), "Huber got delta=0.0; expected a finite number > 0"),
        (lambda: Huber(1.0, delta="1"), "Huber got delta='1'"),
        (lambda: MCP(1.0, gamma=0.0), "MCP got gamma=0.0; expected a finite number > 0"),
        (lambda: SCAD(1.0, gamma=2), "SCAD got gamma=2; expected a finite number > 2"),
        (lambda: SCAD(1.0, gamma=math.inf), "SCAD got gamma=inf"),
        (lambda: LogSum(1.0, epsilon=math.nan), "LogSum got epsilon=nan; expected"),
        (lambda: LogSum(1.0, epsilon=True), "LogSum got epsilon=True; expected"),
    ],
)
def test_parameters_out_of_validity(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(RegularizerError, match=message):
        make()


def test_what_counts_has_no_gradient() -> None:
    with pytest.raises(NoGradientError, match=r'L0\(0\.5\) has no gradient .* mode="proximal"'):
        L0(0.5).gradient(np.ones(2))


@pytest.mark.parametrize("r", [MCP(0.5), SCAD(0.5), LogSum(0.5), L0(0.5)], ids=str)
def test_the_pull_of_what_flattens_out_is_its_mean_slope(r: Regularizer) -> None:
    w = np.array([0.0, 0.1, -4.0])
    each = [float(r(x[None])) / abs(x) if x else 0.0 for x in w]
    np.testing.assert_allclose(r.pull(w), each, rtol=1e-12)
    assert (L1(0.5) + L2(0.1)).pull(w).tolist() == pytest.approx([0.0, 0.52, 1.3])


@pytest.mark.parametrize("r", [MCP(0.5, 2.0), SCAD(0.3), LogSum(0.1, 0.5), MCP(0.5, factor=3.0)])
def test_weak_convexity(r: Regularizer) -> None:
    """Ω + ½ρ‖·‖² is convex, and no smaller ρ will do."""
    t = np.linspace(-3, 3, 6001)
    values = np.array([float(r(x[None])) for x in t])
    rho = r.weak_convexity
    assert rho is not None
    assert np.diff(values + rho * t**2 / 2, 2).min() > -1e-9
    assert np.diff(values + 0.9 * rho * t**2 / 2, 2).min() < -1e-9


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("rows", "there is no such word"),
        (1.5, "it is a float"),
        (None, "it is a NoneType"),
        ((0, "1"), "it is a tuple"),
        ([[0, 1], [1, 2]], "exactly once"),
        ([[0, 1], [3]], "exactly once"),
        ([[0, 1], 2], "it is a list"),
    ],
)
def test_bad_groups(groups: Any, message: str) -> None:
    with pytest.raises(GroupsError, match=message):
        GroupLasso(1.0, groups=groups)


@pytest.mark.parametrize(
    ("groups", "shape", "message"),
    [
        (2, (3, 4), "no such axis; expected axes from -2 to 1"),
        ((0, -3), (3, 4), "no such axis"),
        (0, (), "a scalar has no axes"),
        ([[0, 1]], (3,), "lists 2 indices"),
        ("outputs", (3, 4), "a bare array has no inputs and outputs"),
    ],
)
def test_groups_that_do_not_fit_the_array(groups: Any, shape: Any, message: str) -> None:
    with pytest.raises(GroupsError, match=message):
        GroupLasso(1.0, groups=groups)(np.ones(shape))


def test_groups_are_normalised() -> None:
    r = GroupLasso(1.0, groups=np.array([[0, 1], [2, 3]]))
    assert r == GroupLasso(1.0, groups=[[0, 1], [2, 3]])
    assert r.groups == ((0, 1), (2, 3))
    assert GroupLasso(1.0, groups=[0, 1]).groups == (0, 1)
    assert GroupLasso(1.0, groups=np.int64(1)).groups == 1


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones(2, dtype=np.int32), "dtype int32"),
        (np.ones(2, dtype=np.complex64), "dtype complex64"),
        (torch.ones(2, dtype=torch.int64), "dtype torch.int64"),
        (torch.ones(2, dtype=torch.complex64), "dtype torch.complex64"),
        ([1.0, 2.0], "a builtins.list"),
        (1.0, "a builtins.float"),
    ],
)
def test_bad_arrays(array: Any, message: str) -> None:
    for use in (L1(1.0), L1(1.0).gradient, lambda w: L1(1.0).prox(w, 1.0)):
        with pytest.raises(ArrayError, match=message):
            use(array)


def jax_sparse() -> Any:
    from jax import numpy as jnp
    from jax.experimental import sparse

    return sparse.BCOO.fromdense(jnp.eye(2))


MASKED = np.ma.masked_array([[1.0, 2.0], [3.0, 4.0]], [[1, 0], [0, 0]])


@pytest.mark.filterwarnings("ignore")  # of layouts that are in beta
@pytest.mark.parametrize("r", [L1(1.0), MCP(1.0), GroupLasso(1.0, 0), NuclearNorm(1.0)], ids=repr)
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MASKED, r"a masked array, whose mask .*; expected a plain one, such as w\.filled"),
        (lambda: torch.eye(2).to_sparse(), r"layout torch\.sparse_coo; expected a dense one"),
        (lambda: torch.eye(2).to_sparse_csr(), r"layout torch\.sparse_csr; expected a dense one"),
        (lambda: torch.eye(2).to_mkldnn(), "layout torch._mkldnn; expected a dense one"),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "that is nested"),
        (
            lambda: torch.nested.nested_tensor([torch.ones(2)], layout=torch.jagged),
            "that is nested; expected a dense one",
        ),
        (jax_sparse, r"a JAX BCOO; expected a dense array, such as w\.todense"),
    ],
)
def test_arrays_of_another_kind(make: Callable[[], Any], message: str, r: Regularizer) -> None:
    for use in (r, r.gradient, lambda w: r.prox(w, 1.0)):
        with pytest.raises(ArrayError, match=message):
            use(make())


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@all_cases
def test_a_numpy_matrix_is_an_array(case: Case) -> None:
    """A product of two is that of matrices: what is written for arrays gives another number."""
    w = weights(case)
    if w.ndim != 2:
        return
    r, matrix = case.regularizer, np.matrix(w)
    assert (matrix * matrix.T).sum() != (w * w).sum()
    for array in (matrix, np.ma.masked_array(w), np.rec.array(w)):
        found = [r(array)]
        found += [r.gradient(array)] if r.differentiable else []
        found += [r.prox(array, 0.3)] if case.has_prox else []
        expected = [r(w)]
        expected += [r.gradient(w)] if r.differentiable else []
        expected += [r.prox(w, 0.3)] if case.has_prox else []
        for a, b in zip(found, expected, strict=True):
            assert type(a) is type(b)
            np.testing.assert_array_equal(a, b)


def test_no_singular_values_in_long_double() -> None:
    w = np.eye(2, dtype=np.longdouble)
    assert L2(1.0)(w) == 2
    if w.dtype.itemsize > 8:
        with pytest.raises(ArrayError, match="which has no singular value decomposition; expected"):
            NuclearNorm(1.0)(w)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: L1.from_config({"l2": 1.0}), r"names must be among \['l1'\]"),
        (lambda: L1.from_config({"l1": 1.0, "strength": 1.0}), "in two ways"),
        (lambda: L1.from_config({}), "missing 1 required"),
        (lambda: L1.from_config(3), "names must be among"),
        (lambda: Sum.from_config({}), "it needs terms"),
        (lambda: Sum.from_config({"terms": [3]}), "needs a class_name and a config"),
        (
            lambda: Sum.from_config({"terms": [{"class_name": "L3", "config": {}}]}),
            "the classes are .*GroupLasso",
        ),
    ],
)
def test_bad_configs(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize("terms", [(), (L1(1.0), 3)])
def test_bad_sums(terms: Any) -> None:
    with pytest.raises(RegularizerError, match=r"Sum got .*a tuple of regularizers, at least one"):
        Sum(terms)


def test_a_class_may_not_take_a_name_of_ours() -> None:
    with pytest.raises(RegularizerError, match="is taken by a regularizer of penalize"):
        type("L1", (Regularizer,), {"__module__": "mine"})
    assert Sum.from_config((L1(1.0) + L2(1.0)).get_config()) == L1(1.0) + L2(1.0)


@pytest.mark.parametrize(
    ("kind", "config"),
    [(L1, {"l1": 0.5}), (L2, {"l2": 0.5}), (Orthogonal, {"factor": 0.5, "mode": "rows"})],
)
def test_configs_have_the_names_that_keras_uses(kind: Any, config: dict[str, Any]) -> None:
    assert kind(0.5).get_config() == config
    assert kind.from_config({"strength": 0.5}) == kind(0.5)


@pytest.mark.parametrize("strength", [0.1, 1e-4, 0.00123, 0.5, 3.0, 1e30])
def test_a_strength_that_keras_kept_in_float32_is_read_as_it_was_meant(strength: float) -> None:
    assert L1.from_config({"l1": float(np.float32(strength))}) == L1(strength)


@pytest.mark.parametrize("strength", [2.0**-20, 1 / 3, 0.1 + 1e-12, 1e-60, 1e60, 123456789.0])
def test_other_strengths_are_read_to_the_bit(strength: float) -> None:
    assert L1.from_config(L1(strength).get_config()) == L1(strength)


def test_a_matrix_penalty_refuses_what_is_no_matrix() -> None:
    with pytest.raises(RegularizerError, match="mode='row'; expected one of"):
        Orthogonal(1.0, mode="row")
    with pytest.raises(ShapeError, match=r"given an array of shape \(3,\); expected a matrix"):
        Orthogonal(1.0)(np.ones(3))
    with pytest.raises(ShapeError, match=r"array 'conv' of shape \(3, 3, 2\); expected a matrix"):
        Orthogonal(1.0).resolve(Place(("conv",), (3, 3, 2)))


@pytest.mark.parametrize("case", FEW, ids=str)
def test_traceable_by_torch_compile(case: Case) -> None:
    torch._dynamo.reset()
    r = case.regularizer
    compiled = torch.compile(
        lambda w, step: (
            r(w),
            r.gradient(w) if r.differentiable else w,
            r.prox(w, step) if case.has_prox else w,
        ),
        fullgraph=True,
        backend="eager",
    )
    w = torch.tensor(with_zeros(case))
    step = torch.tensor(one_for_each(case)) if case.prox_per_element else 0.3
    expected = float(r(w))  # first: an anchor is put on the device outside of what is compiled
    value, gradient, prox = compiled(w, step)
    assert float(value) == pytest.approx(expected, rel=1e-12)
    if r.differentiable:
        torch.testing.assert_close(gradient, r.gradient(w))
    if case.has_prox:
        torch.testing.assert_close(prox, r.prox(w, step))


def test_kernels_are_compiled_beside_every_framework() -> None:
    """Each brings an LLVM of its own."""
    import jax
    import tensorflow as tf

    from penalize.torch.kernels import Additions, Router, at_any_size

    assert float(jax.jit(lambda x: (x * x).sum())(jax.numpy.ones(3))) == 3
    assert float(tf.function(lambda x: tf.reduce_sum(x * x), jit_compile=True)(tf.ones(3))) == 3
    w, to = torch.tensor([[3.0, -2.0]]), torch.zeros(1, 2)
    router = Router()
    with at_any_size():
        router.add(Additions(["w"], [w], [to], [L1(0.5)], [0], [False]), {0: 1.0})
    assert router.taken["w"][0] == "compiled"
    assert to.tolist() == [[0.5, -0.5]]
