"""What acts by its proximal operator alone, and what follows a schedule, at every wing's doors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from frameworks import Jitted
from torch import nn
from torch.optim import SGD, Adam

from penalize import (
    L0,
    L1,
    L2,
    MaxNorm,
    NeverAppliedWarning,
    NoGradientError,
    NonNegative,
    NoStepError,
    Regularizer,
    Simplex,
    UnitNorm,
    warmup,
)
from penalize.torch import audit, regularize

CONSTRAINT = 'has no gradient that could act on a weight.*mode="proximal"'
ONLY_PROX = pytest.mark.parametrize(
    "r", [NonNegative(), L0(0.1), MaxNorm(0.5), L2(0.1) + NonNegative()], ids=str
)


def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 2, bias=False).double()


# --- PyTorch --------------------------------------------------------------------------------


@ONLY_PROX
@pytest.mark.parametrize("mode", ["gradient", "decoupled"])
def test_refused_by_attach(r: Regularizer, mode: str) -> None:
    model = layer()
    plan = regularize(model, r)
    with pytest.raises(NoGradientError, match=rf"\(on 'weight'\) {CONSTRAINT}"):
        plan.attach(SGD(model.parameters(), 0.1), mode)
    assert not plan.attachments()


@ONLY_PROX
def test_refused_in_a_loss_that_is_differentiated(r: Regularizer) -> None:
    """Looking at it is fine: it is 0 or infinite, or a count."""
    model = layer()
    plan = regularize(model, r)
    assert float(plan.penalty().detach()) >= 0
    with torch.no_grad():
        assert not plan.penalty().requires_grad
    loss = model(torch.ones(4, 3, dtype=torch.float64)).sum() + plan.penalty()
    with pytest.raises(NoGradientError, match=CONSTRAINT):
        loss.backward()


HOLDS: dict[Regularizer, Callable[[Any], Any]] = {
    NonNegative(): lambda w: (w >= 0).all(),
    MaxNorm(0.3): lambda w: (w.norm(dim=1) <= 0.3 + 1e-9).all(),
    UnitNorm(): lambda w: torch.allclose(w.norm(dim=1), torch.ones(2).double()),
    Simplex(): lambda w: torch.allclose(w.sum(1), torch.ones(2).double()) and (w >= 0).all(),
}


@pytest.mark.parametrize("r", HOLDS, ids=str)
@pytest.mark.parametrize("make", [SGD, Adam], ids=lambda kind: kind.__name__)
def test_a_constraint_holds_after_each_step(r: Regularizer, make: Any) -> None:
    model = layer()
    optimizer = make(model.parameters(), 0.1)
    plan = regularize(model, r)
    if make is Adam and isinstance(r, UnitNorm):
        with pytest.raises(Exception, match="the step differs from element to element"):
            plan.attach(optimizer, "proximal")
        return
    plan.attach(optimizer, "proximal")
    x = torch.randn(8, 3, dtype=torch.float64)
    for _ in range(5):
        optimizer.zero_grad()
        (model(x) - 1).square().mean().backward()
        optimizer.step()
        assert HOLDS[r](model.weight.detach())
        assert plan.breakdown() == {"weight": 0.0}


def test_the_constrained_minimum_under_adam() -> None:
    """‖w − a‖²/2 with ‖w‖ ≤ 1: the projection of a, also in the metric of Adam."""
    target = torch.tensor([[3.0, -0.2, 0.05]], dtype=torch.float64)
    w = nn.Linear(3, 1, bias=False).double()
    nn.init.ones_(w.weight)
    optimizer = Adam(w.parameters(), 0.05)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.995)
    regularize(w, MaxNorm(1.0)).attach(optimizer, "proximal")
    for _ in range(3000):
        w.weight.grad = w.weight.detach() - target
        optimizer.step()
        schedule.step()
    torch.testing.assert_close(w.weight.detach(), target / target.norm(), rtol=0, atol=1e-4)


def test_a_scheduled_penalty_is_audited_at_its_step() -> None:
    model = layer()
    optimizer = SGD(model.parameters(), 0.1)
    plan = regularize(model, L1(0.1) * warmup(4))
    attachment = plan.attach(optimizer)
    x = torch.ones(4, 3, dtype=torch.float64)

    def step() -> None:
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()

    step()
    before = attachment.steps, plan.steps
    (row,) = audit(step, plan).rows
    assert row.factor == pytest.approx(1.0)
    assert (attachment.steps, plan.steps) == before == ([1], 1)


@pytest.mark.parametrize("mode", ["decoupled", "proximal"])
def test_a_schedule_on_half_precision_weights(mode: str) -> None:
    """Whether steps would be rounded away is asked of the first one."""
    model = nn.Linear(3, 2, bias=False).bfloat16()
    optimizer = SGD(model.parameters(), 0.1)
    regularize(model, L1(1.0) * warmup(4)).attach(optimizer, mode)
    model.weight.grad = torch.zeros_like(model.weight)
    optimizer.step()


def test_a_plan_that_only_constrains_and_is_not_attached_is_seen() -> None:
    model = layer()
    optimizer = SGD(model.parameters(), 0.1)
    plan = regularize(model, NonNegative())
    model(torch.ones(4, 3, dtype=torch.float64)).sum().backward()
    with pytest.warns(NeverAppliedWarning):
        optimizer.step()
    assert plan.steps == 1


# --- JAX ------------------------------------------------------------------------------------


def test_in_jax() -> None:
    import jax
    import jax.numpy as jnp
    import optax

    from penalize.jax import regularize as regularize_tree

    params = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)))}
    plan = regularize_tree(params, NonNegative())
    for make in (plan.gradient, lambda: plan.decoupled(0.1)):
        with pytest.raises(NoGradientError, match=rf"\(on 'w'\) {CONSTRAINT}"):
            make()
    assert float(plan.penalty(params)) == np.inf
    with pytest.raises(NoGradientError, match=CONSTRAINT):
        jax.grad(plan.penalty)(params)
    optimizer = optax.chain(optax.adam(0.1), plan.proximal(0.1))
    state = optimizer.init(params)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        updates, state = optimizer.update(jax.tree.map(jnp.ones_like, params), state, params)
        return optax.apply_updates(params, updates), state

    params, _ = step(params, state)
    assert (params["w"] >= 0).all()
    assert float(plan.penalty(params)) == 0.0


def test_a_schedule_in_jax_needs_a_step_in_the_loss() -> None:
    import jax.numpy as jnp

    from penalize.jax import regularize as regularize_tree

    params = {"w": jnp.ones((3, 2))}
    plan = regularize_tree(params, L2(0.5) * warmup(4))
    for use in (plan.penalty, plan.breakdown, lambda p: plan.prox(p, 0.1)):
        with pytest.raises(NoStepError, match=r"penalty\(\.\.\., at=step\)"):
            use(params)
    penalty = Jitted(lambda p, t: plan.penalty(p, at=t))
    assert [float(penalty(params, t)) for t in range(5)] == pytest.approx([0, 0.75, 1.5, 2.25, 3])
    assert penalty.traces == 1
    assert plan.breakdown(params, at=2) == {"w": pytest.approx(1.5)}
    w = plan.prox(params, 1.0, at=2)["w"]
    np.testing.assert_allclose(w, 1 / 1.5, rtol=1e-6)


# --- TensorFlow -----------------------------------------------------------------------------


def test_in_tensorflow() -> None:
    import tensorflow as tf

    from penalize.tensorflow import regularize as regularize_variables

    kernel = tf.Variable(np.ones((3, 2)), name="kernel")
    with pytest.raises(NoGradientError, match=CONSTRAINT):
        regularize_variables([kernel], NonNegative()).penalty()
    plan = regularize_variables([kernel], L2(0.5) * warmup(4))
    with pytest.raises(NoStepError, match="follows a schedule"):
        plan.penalty()
    function = tf.function(lambda t: plan.penalty(at=t))
    found = [float(function(tf.constant(t, tf.int64))) for t in range(5)]
    assert found == pytest.approx([0, 0.75, 1.5, 2.25, 3])
    assert function.experimental_get_tracing_count() == 1
    assert plan.breakdown(at=4) == {"kernel": 3.0}


@pytest.mark.parametrize("mode", ["gradient", "proximal"])
def test_a_graph_of_tensorflow_1_follows_its_global_step(mode: str) -> None:
    import tensorflow as tf

    from penalize.tensorflow import regularize as regularize_variables
    from penalize.tensorflow import regularized

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        kernel = v1.get_variable("kernel", initializer=np.ones((2, 2)))
        plan = regularize_variables([kernel], L2(0.5) * warmup(4))
        optimizer = regularized(v1.train.GradientDescentOptimizer(0.125), plan=plan, mode=mode)
        loss = 0.0 * tf.reduce_sum(kernel)
        with pytest.raises(NoStepError, match="follows a schedule"):
            optimizer.minimize(loss)
        train = optimizer.minimize(loss, global_step=v1.train.get_or_create_global_step())
        session.run(v1.global_variables_initializer())
        w = 1.0
        for t in range(6):
            session.run(train)
            strength = 0.5 * min(t / 4, 1)
            w = w / (1 + 0.25 * strength) if mode == "proximal" else w - 0.25 * strength * w
            assert float(session.run(kernel)[0, 0]) == pytest.approx(w, rel=1e-12)


def test_the_breakdown_of_a_graph_is_of_the_step_that_is_asked_for() -> None:
    import tensorflow as tf

    from penalize.tensorflow import regularize as regularize_variables

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        kernel = v1.get_variable("kernel", initializer=np.ones((2, 2)))
        plan = regularize_variables([kernel], L2(0.5) * warmup(4))
        session.run(kernel.initializer)
        assert [plan.breakdown(at=t)["kernel"] for t in (1, 4, 2)] == [0.5, 2.0, 1.0]


def test_a_constraint_in_a_graph_of_tensorflow_1() -> None:
    import tensorflow as tf

    from penalize.tensorflow import regularize as regularize_variables
    from penalize.tensorflow import regularized

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        kernel = v1.get_variable("kernel", initializer=-np.ones((2, 2)))
        plan = regularize_variables([kernel], NonNegative())
        loss = tf.reduce_sum(kernel)
        with pytest.raises(NoGradientError, match=CONSTRAINT):
            regularized(v1.train.AdamOptimizer(0.1), plan=plan).minimize(loss)
        train = regularized(v1.train.AdamOptimizer(0.1), plan=plan, mode="proximal").minimize(loss)
        session.run(v1.global_variables_initializer())
        session.run(train)
        assert not session.run(kernel).any()
