"""The plan as a function of parameters: value, derivatives, prox, and JAX' transformations."""

from __future__ import annotations

import importlib
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import KINDS, Case
from flax import nnx

from penalize import (
    L1,
    L2,
    GroupLasso,
    MissingPackageError,
    ModelError,
    NoProximalOperatorError,
    Orthogonal,
    StepError,
    biases,
    kernels,
)
from penalize.jax import regularize, traces

PARAMS = {
    "hidden": {"kernel": jnp.arange(6.0).reshape(2, 3) - 2, "bias": jnp.ones(3)},
    "out": {"kernel": jnp.arange(3.0).reshape(3, 1), "bias": jnp.zeros(1)},
}
RULES = {kernels: L1(0.5), "out": GroupLasso(2.0, groups="inputs"), "hidden.bias": L2(0.1)}
PLAN = regularize(PARAMS, RULES)
VALUE = 0.5 * 9 + 2.0 * 3 + 0.1 * 3


def test_penalty_and_breakdown() -> None:
    assert float(PLAN.penalty(PARAMS)) == pytest.approx(VALUE)
    parts = PLAN.breakdown(PARAMS)
    assert parts == pytest.approx({"hidden.kernel": 4.5, "out.kernel": 6.0, "hidden.bias": 0.3})
    assert all(isinstance(value, float) for value in parts.values())
    np.testing.assert_allclose(jax.jit(PLAN.penalty)(PARAMS), VALUE)


def test_the_plan_shows() -> None:
    assert repr(PLAN) == "<Plan: 3 of 4 parameters penalized>"
    text = str(PLAN)
    assert "hidden.kernel  kernel  2×3    L1(0.5)" in text
    assert text.endswith("3 of 4 parameters penalized")


def test_a_plan_holds_no_arrays_and_pickles() -> None:
    again = pickle.loads(pickle.dumps(PLAN))
    assert again.rows == PLAN.rows
    assert float(again.penalty(PARAMS)) == float(PLAN.penalty(PARAMS))


def test_a_plan_without_penalties_is_zero() -> None:
    plan = regularize(PARAMS, {})
    assert float(plan.penalty(PARAMS)) == 0.0
    assert plan.breakdown(PARAMS) == {}
    assert not np.any(jax.grad(plan.penalty)(PARAMS)["out"]["kernel"])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_reduced_in_float32(dtype: str) -> None:
    params = {"w": jnp.full((100, 30), 10.0, dtype)}
    penalty = jax.jit(regularize(params, L2(1.0)).penalty)(params)
    assert float((params["w"] ** 2).sum()) != 300_000  # naive
    assert float(penalty) == 300_000


# --- derivatives ----------------------------------------------------------------------------


def with_zeros(case: Case) -> Any:
    """Some elements zero, and a whole group by any axis."""
    w = np.random.default_rng(0).normal(size=case.shape)
    w[0] = 0.0
    w[..., 0] = 0.0
    return jnp.asarray(w)


@pytest.mark.parametrize("case", [c for c in KINDS if c.regularizer.differentiable], ids=str)
def test_subgradients_at_kinks(case: Case) -> None:
    """Forward and reverse: the subgradient of least norm, which ``gradient`` gives."""
    penalty = regularize({"w": jnp.zeros(case.shape)}, {"w": case.regularizer}).penalty

    @jax.jit
    def derivatives(params: Any) -> Any:
        _, slope = jax.jvp(penalty, (params,), ({"w": jnp.ones(case.shape)},))
        first = jax.grad(penalty)(params)["w"], jax.jacfwd(penalty)(params)["w"]
        # The derivative of a singular value decomposition is not that of the penalty.
        second = first[0] if case.once_differentiable else jax.hessian(penalty)(params)["w"]["w"]
        return *first, slope, second

    for w in (with_zeros(case), jnp.zeros(case.shape)):
        expected = case.regularizer.gradient(np.asarray(w))
        reverse, forward, slope, hessian = derivatives({"w": w})
        np.testing.assert_allclose(reverse, expected, atol=1e-14)
        np.testing.assert_allclose(forward, expected, atol=1e-14)
        np.testing.assert_allclose(slope, expected.sum(), atol=1e-12)
        assert np.isfinite(hessian).all()
    if case.kinks_at_zero and not (case.regularizer.split()[1] or case.curved_at_zero):
        assert not np.any(hessian)  # at zero


def test_naive_kinks() -> None:
    assert jax.grad(jnp.abs)(0.0) == 1
    assert jnp.isnan(jax.grad(lambda w: jnp.sqrt((w**2).sum()))(jnp.zeros(3))).all()
    assert jnp.isnan(jax.grad(jnp.linalg.norm)(jnp.zeros(3))).all()


def test_hessian_of_l2() -> None:
    params = {"w": jnp.array([[0.0, 3.0]])}
    hessian = jax.hessian(regularize(params, L2(0.5)).penalty)(params)["w"]["w"]
    np.testing.assert_array_equal(hessian.reshape(2, 2), np.eye(2))


def test_vmap_over_models() -> None:
    stacked = jax.tree.map(lambda w: jnp.stack([w, 2 * w, 0 * w]), PARAMS)
    values = jax.vmap(PLAN.penalty)(stacked)
    each = [PLAN.penalty(jax.tree.map(lambda w, i=i: w[i], stacked)) for i in range(3)]
    np.testing.assert_allclose(values, each)
    slopes = jax.vmap(jax.grad(PLAN.penalty))(stacked)
    np.testing.assert_allclose(
        slopes["hidden"]["kernel"][1], jax.grad(PLAN.penalty)(PARAMS)["hidden"]["kernel"]
    )
    with pytest.raises(ModelError, match=r"'hidden\.bias' has the shape \(3, 3\) .*vmap over sev"):
        PLAN.penalty(stacked)


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint])
def test_within_other_transformations(wrap: Any) -> None:
    found = jax.grad(lambda p: wrap(PLAN.penalty)(p))(PARAMS)
    expected = jax.grad(PLAN.penalty)(PARAMS)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


# --- prox -----------------------------------------------------------------------------------


def test_prox_of_a_tree() -> None:
    found = PLAN.prox(PARAMS, 1.0)
    np.testing.assert_allclose(
        found["hidden"]["kernel"], [[-1.5, -0.5, 0.0], [0.5, 1.5, 2.5]], atol=1e-15
    )
    np.testing.assert_allclose(found["hidden"]["bias"], 1 / 1.2)
    assert (found["out"]["kernel"] == 0).all()
    assert found["out"]["bias"] is PARAMS["out"]["bias"]
    jitted = jax.jit(PLAN.prox)(PARAMS, jnp.asarray(1.0))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-15), jitted, found)


def test_prox_of_a_state_and_a_module_of_nnx() -> None:
    net = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    plan = regularize(net, L1(100.0))
    for params in (nnx.state(net), net):
        found = plan.prox(params, 1.0)
        assert type(found) is type(params)
        assert not np.any(found["kernel"][...] if params is not net else found.kernel[...])


def test_prox_reaches_every_name_of_a_tied_variable() -> None:
    class Net(nnx.Module):
        def __init__(self) -> None:
            self.first = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
            self.second = self.first

    net = Net()
    found = regularize(net, L1(100.0)).prox(net, 1.0)
    assert not np.any(found.first.kernel[...])
    assert not np.any(found.second.kernel[...])


def test_prox_is_refused_as_ever() -> None:
    with pytest.raises(NoProximalOperatorError, match=r"on 'hidden\.kernel'"):
        regularize(PARAMS, {"hidden.kernel": Orthogonal(0.1)}).prox(PARAMS, 1.0)
    with pytest.raises(StepError, match="step=-1"):
        PLAN.prox(PARAMS, -1.0)


# --- trees that do not match ----------------------------------------------------------------


@pytest.mark.parametrize("ask", ["penalty", "breakdown"])
def test_another_tree(ask: str) -> None:
    function = getattr(PLAN, ask)
    with pytest.raises(ModelError, match=r"lacks 'out\.kernel', unlike the one that was planned"):
        function({"hidden": PARAMS["hidden"]})
    with pytest.raises(ModelError, match=r"This tree has 'head\.w', unlike"):
        function({**PARAMS, "head": {"w": jnp.ones((2, 2))}})
    with pytest.raises(ModelError, match=r"'params\.hidden\.bias'.*pass the parameters that were"):
        function({"params": PARAMS})


def test_what_is_not_penalized_may_be_missing() -> None:
    params = {"hidden": PARAMS["hidden"], "out": {"kernel": PARAMS["out"]["kernel"]}}
    assert float(PLAN.penalty(params)) == pytest.approx(VALUE)


def test_a_branch_that_a_mask_left_out() -> None:
    assert float(PLAN.penalty({"hidden": PARAMS["hidden"], "out": None})) == pytest.approx(4.8)
    plan = regularize(PARAMS, {biases: L2(0.1)})
    left = {"hidden": {"kernel": None, "bias": PARAMS["hidden"]["bias"]}, "out": None}
    assert float(plan.penalty(left)) == pytest.approx(0.3)


def test_arrays_of_numpy() -> None:
    """As a checkpoint has them. What JAX calls hands them on as a class of its own."""
    plan = regularize(PARAMS, GroupLasso(0.3, groups=1))
    params = jax.tree.map(np.asarray, PARAMS)
    for penalty in (plan.penalty, jax.jit(plan.penalty)):
        np.testing.assert_allclose(penalty(params), plan.penalty(PARAMS))
    found, expected = jax.grad(plan.penalty)(params), jax.grad(plan.penalty)(PARAMS)
    jax.tree.map(np.testing.assert_allclose, found, expected)


def test_an_older_jax_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """There a penalty in the loss beside ``plan.gradient()`` would not be seen."""
    monkeypatch.setattr(jax, "__version_info__", (0, 7, 0))
    with pytest.raises(MissingPackageError, match=r"penalize\.jax needs jax>=0\.7\.1, which"):
        importlib.reload(traces)
