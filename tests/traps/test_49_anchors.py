"""Trap 49: a penalty toward pretrained weights."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest
import torch
from frameworks import Jitted
from torch import nn
from torch.optim import SGD

from penalize import EWC, L2, ConfigError, StateError, kernels, toward
from penalize.torch import regularize


def pretrained() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    return x, x.sum(1, keepdim=True)


def loss_of(model: nn.Module) -> torch.Tensor:
    x, y = batch()
    return nn.functional.mse_loss(model(x), y)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, plan: Any = None) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_of(model)
        (loss if plan is None else loss + plan.penalty()).backward()
        optimizer.step()


def test_naive_compared_with_itself() -> None:
    """``detach()`` shares the memory of the weight: the anchor moves with it."""
    model = pretrained()
    anchor = [p.detach() for p in model.parameters()]
    train(model, SGD(model.parameters(), lr=0.1), 1)
    pairs = zip(model.parameters(), anchor, strict=True)
    assert all(torch.equal(p, a) for p, a in pairs)


def test_naive_lost_in_a_checkpoint() -> None:
    """What resumes takes the weights that it finds for the pretrained ones."""
    model = pretrained()
    train(model, SGD(model.parameters(), lr=0.1), 5)
    resumed = pretrained()
    resumed.load_state_dict(model.state_dict())
    anchor = [p.detach().clone() for p in resumed.parameters()]
    moved = [p.detach() - q for p, q in zip(pretrained().parameters(), anchor, strict=True)]
    assert max(float(m.detach().abs().max()) for m in moved) > 1e-3


def expected(model: nn.Module, steps: int) -> nn.Module:
    """By hand: the gradient of 0.3·‖w − w₀‖² over the kernels."""
    start = copy.deepcopy(model)
    optimizer = SGD(model.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        penalty = sum(
            (p - q).pow(2).sum()
            for p, q in zip(model.parameters(), start.parameters(), strict=True)
            if p.ndim == 2
        )
        (loss_of(model) + 0.3 * penalty).backward()
        optimizer.step()
    return model


RULES = {kernels: toward("start", L2(0.3))}


def test_zero_at_the_start_and_more_after_a_step() -> None:
    model = pretrained()
    plan = regularize(model, RULES)
    assert float(plan.penalty().detach()) == 0.0
    optimizer = SGD(model.parameters(), lr=0.1)
    plan.attach(optimizer)
    train(model, optimizer, 1)
    assert float(plan.penalty().detach()) > 0.0
    assert repr(plan.targets()[0].regularizer) == "toward(<float64 4×3 at the start>, L2(0.3))"
    assert repr(plan.rows[0].regularizer) == "toward('start', L2(0.3))"  # as it was declared


@pytest.mark.parametrize("door", ["loss", "attachment"])
def test_resumed_from_a_file(door: str) -> None:
    """Two steps, a new process' worth of new objects, three more: as five in one go."""
    reference = expected(pretrained(), 5).state_dict()

    model = pretrained()
    optimizer = SGD(model.parameters(), lr=0.1)
    plan = regularize(model, RULES)
    holder: Any = plan if door == "loss" else plan.attach(optimizer)
    in_loss = plan if door == "loss" else None
    train(model, optimizer, 2, in_loss)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "penalties": holder.state_dict()}, file)
    del model, optimizer, plan, holder, in_loss

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    model = pretrained()
    model.load_state_dict(saved["model"])
    optimizer = SGD(model.parameters(), lr=0.1)
    plan = regularize(model, RULES)  # takes the moved weights for the start
    holder = plan if door == "loss" else plan.attach(optimizer)
    holder.load_state_dict(saved["penalties"])
    assert float(plan.penalty().detach()) > 0.0
    assert plan.steps == 2
    train(model, optimizer, 3, plan if door == "loss" else None)
    torch.testing.assert_close(dict(model.state_dict()), dict(reference), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda start: start.update(shape=[3, 4]), r"'0\.weight' has .*\[3, 4\]"),
        (lambda start: start.update(data="?"), "its array is damaged"),
        (lambda start: start.update(data=""), "its array is damaged"),
        (lambda start: start.pop("data"), "its array is damaged"),
        (lambda start: start.update(dtype="object", data=""), "its array is damaged"),
    ],
)
def test_a_damaged_anchor_is_refused_and_nothing_is_taken(change: Any, message: str) -> None:
    model = pretrained()
    optimizer = SGD(model.parameters(), lr=0.1)
    attachment = regularize(model, RULES).attach(optimizer)
    state = copy.deepcopy(attachment.state_dict())
    change(state["penalties"]["0.weight"]["config"]["reference"]["start"])
    state["steps"] = [7]
    with pytest.raises((StateError, ConfigError), match=message):
        attachment.load_state_dict(state)
    assert attachment.steps == [0]
    train(model, optimizer, 1)


def test_the_anchor_is_a_copy() -> None:
    model = pretrained()
    plan = regularize(model, RULES)
    twin = copy.deepcopy(plan)
    with torch.no_grad():
        model[0].weight.add_(1.0)
    assert float(plan.penalty().detach()) == pytest.approx(0.3 * 12)
    assert float(twin.penalty().detach()) == 0.0


def test_ewc_by_name() -> None:
    model = pretrained()
    fisher = {name: torch.rand_like(p) for name, p in model.named_parameters()}
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    plan = regularize(model, {kernels: EWC(fisher, weights, 0.5)})
    assert set(plan.breakdown().values()) == {0.0}
    train(model, SGD(model.parameters(), lr=0.1), 1, plan)
    by_hand = {
        n: float((fisher[n] * (p.detach() - weights[n]) ** 2).sum()) * 0.5
        for n, p in model.named_parameters()
        if p.ndim == 2
    }
    assert plan.breakdown() == pytest.approx(by_hand, rel=1e-12)


# --- the other wings ------------------------------------------------------------------------


def test_in_jax() -> None:
    import jax
    import jax.numpy as jnp
    import optax

    from penalize.jax import regularize as regularize_tree

    params = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)))}
    plan = regularize_tree(params, toward("start", L2(0.3)))
    start = params["w"]
    optimizer = optax.chain(plan.gradient(), optax.sgd(0.1))
    state = optimizer.init(params)
    assert float(plan.penalty(params)) == 0.0

    @Jitted
    def step(params: Any, state: Any) -> Any:
        gradients = jax.tree.map(jnp.ones_like, params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    by_hand = start
    for _ in range(3):
        params, state = step(params, state)
        by_hand = by_hand - 0.1 * (1.0 + 0.6 * (by_hand - start))
    np.testing.assert_allclose(params["w"], by_hand, rtol=1e-12)
    assert float(plan.penalty(params)) > 0.0
    assert step.traces == 1


def test_in_tensorflow() -> None:
    import tensorflow as tf

    from penalize.tensorflow import regularize as regularize_variables

    w = tf.Variable(np.ones((3, 2)), name="kernel")
    plan = regularize_variables([w], toward("start", L2(0.3)))
    assert float(plan.penalty()) == 0.0
    w.assign_add(tf.ones_like(w))
    assert float(tf.function(plan.penalty)()) == pytest.approx(0.3 * 6)
