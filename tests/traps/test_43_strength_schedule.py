"""Trap 43: a strength that changes, under ``jax.jit``."""

from __future__ import annotations

import gc
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
import torch
from frameworks import Jitted
from torch import nn

from penalize import L1, L2, warmup
from penalize.jax import regularize
from penalize.torch import regularize as regularize_model

PARAMS = {"w": jnp.ones((2, 2))}
PLAN = regularize(PARAMS, L2(1.0))
STEPS = 5


def strength_at(count: Any) -> Any:
    return 0.01 * count


def expected() -> float:
    """lr = 1: w ← w − 2·s·w."""
    w = 1.0
    for count in range(STEPS):
        w -= 2 * strength_at(count) * w
    return w


def test_naive_frozen_in() -> None:
    """A Python number that the traced function reads is a constant of the program."""
    strength = 0.0

    @jax.jit
    def step(w: Any) -> Any:
        return w - jax.grad(lambda w: strength * (w**2).sum())(w)

    w = PARAMS["w"]
    for count in range(STEPS):
        strength = strength_at(count)
        w = step(w)
    assert float(w[0, 0]) == 1.0


def test_naive_recompiled() -> None:
    traces = 0

    def step(w: Any, strength: float) -> Any:
        nonlocal traces
        traces += 1
        return w - jax.grad(lambda w: strength * (w**2).sum())(w)

    w, jitted = PARAMS["w"], jax.jit(step, static_argnums=1)
    for count in range(STEPS):
        w = jitted(w, strength_at(count))
    assert float(w[0, 0]) == pytest.approx(expected())
    assert traces == STEPS


@pytest.mark.parametrize(
    "tx",
    [
        optax.chain(PLAN.gradient(strength_at), optax.sgd(1.0)),
        optax.chain(optax.sgd(1.0), PLAN.decoupled(1.0, strength_at)),
        optax.chain(optax.inject_hyperparams(PLAN.gradient)(strength=strength_at), optax.sgd(1.0)),
    ],
    ids=["gradient", "decoupled", "injected"],
)
def test_followed_without_compiling_again(tx: Any) -> None:
    traces = 0

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        nonlocal traces
        traces += 1
        updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(STEPS):
        params, state = step(params, state)
    assert float(params["w"][0, 0]) == pytest.approx(expected())
    assert traces == 1


def test_in_a_loss_it_is_an_argument() -> None:
    @Jitted
    def step(params: Any, strength: Any) -> Any:
        slopes = jax.grad(lambda p: strength * PLAN.penalty(p))(params)
        return optax.apply_updates(params, jax.tree.map(jnp.negative, slopes))

    params = PARAMS
    for count in range(STEPS):
        params = step(params, strength_at(count))
    assert float(params["w"][0, 0]) == pytest.approx(expected())
    assert step.traces == 1


def test_a_schedule_of_the_regularizer() -> None:
    """``r * schedule`` follows the count of the transform."""
    traces = 0
    plan = regularize(PARAMS, L2(1.0) * strength_at)
    tx = optax.chain(plan.gradient(), optax.sgd(1.0))

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        nonlocal traces
        traces += 1
        updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(STEPS):
        params, state = step(params, state)
    assert float(params["w"][0, 0]) == pytest.approx(expected())
    assert traces == 1


# --- PyTorch ----------------------------------------------------------------------------------


def layer() -> nn.Linear:
    model = nn.Linear(2, 2, bias=False).double()
    nn.init.ones_(model.weight)
    return model


def test_naive_recompiled_in_torch() -> None:
    compiles = 0

    def count(graph: Any, _: Any) -> Any:
        nonlocal compiles
        compiles += 1
        return graph.forward

    class Penalty:
        strength = 0.0

        def __call__(self, w: Any) -> Any:
            return self.strength * (w**2).sum()

    torch._dynamo.reset()
    penalty = Penalty()
    compiled = torch.compile(lambda w: penalty(w), backend=count, dynamic=False)
    for t in range(4):
        penalty.strength = 0.1 * t
        compiled(torch.ones(2, 2))
    assert compiles == 4


@pytest.mark.parametrize("mode", ["gradient", "decoupled", "proximal"])
def test_an_attachment_follows(mode: str) -> None:
    model = layer()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    attachment = regularize_model(model, L2(0.1) * warmup(4)).attach(optimizer, mode)
    w = 1.0
    for t in range(STEPS):
        model.weight.grad = torch.zeros(2, 2, dtype=torch.float64)
        optimizer.step()
        strength = 0.1 * min(t / 4, 1.0)
        w = w / (1 + 2 * strength) if mode == "proximal" else w - 2 * strength * w
        assert model.weight[0, 0].item() == pytest.approx(w, rel=1e-12)
    assert attachment.steps == [STEPS]


def test_a_resumed_attachment_goes_on_where_it_was() -> None:
    saved = None
    model = layer()
    for _ in range(2):
        gc.collect()  # the optimizer of the run before is gone
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        plan = regularize_model(model, L2(0.1) * warmup(4))
        attachment = plan.attach(optimizer)
        if saved is not None:
            attachment.load_state_dict(saved)
        for _ in range(2):
            optimizer.zero_grad()
            model.weight.grad = torch.zeros(2, 2, dtype=torch.float64)
            optimizer.step()
        saved = attachment.state_dict()
        steps = plan.steps
        del optimizer, plan, attachment
    assert saved is not None
    assert saved["steps"] == [4]
    assert steps == 4
    w = 1.0
    for t in range(4):
        w -= 2 * 0.1 * t / 4 * w
    assert model.weight[0, 0].item() == pytest.approx(w, rel=1e-12)


def test_a_compiled_loss_follows_without_compiling_again() -> None:
    compiles = 0

    def count(graph: Any, _: Any) -> Any:
        nonlocal compiles
        compiles += 1
        return graph.forward

    torch._dynamo.reset()
    model = layer()
    plan = regularize_model(model, L2(0.1) * warmup(4))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    loss_of = torch.compile(lambda: plan.penalty(), backend=count, fullgraph=True)
    w = 1.0
    for t in range(STEPS):
        optimizer.zero_grad()
        loss_of().backward()
        optimizer.step()
        w -= 2 * 0.1 * min(t / 4, 1.0) * w
        assert model.weight[0, 0].item() == pytest.approx(w, rel=1e-6)
    assert compiles == 1


def test_a_step_that_calls_its_parents_counts_once() -> None:
    class Sub(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            return super().step(closure)

    model = layer()
    plan = regularize_model(model, {"weight": L1(0.1) * warmup(4)})
    optimizer = Sub(model.parameters(), lr=1.0)
    for _ in range(3):
        optimizer.zero_grad()
        plan.penalty().backward()
        optimizer.step()
    assert plan.steps == 3
