"""The same rules, weights and optimizer on PyTorch and on JAX: ten steps in every mode."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch import nn

import penalize.jax
import penalize.torch
from penalize import L1, L2, GroupLasso, biases, kernels

LR, STEPS = 0.05, 10
RULES = {
    kernels: L1(0.02) + GroupLasso(0.05, groups="outputs"),
    "1": L2(0.3),
    "0.bias": L1(0.1),
    biases: L2(0.05),
}
_rng = np.random.default_rng(0)
X, Y = _rng.normal(size=(16, 4)), _rng.normal(size=(16, 2))
SHAPES = {"0.kernel": (4, 3), "0.bias": (3,), "1.kernel": (3, 2), "1.bias": (2,)}
START = {name: _rng.normal(size=shape) for name, shape in SHAPES.items()}

OPTIMIZERS: dict[str, tuple[Any, Any]] = {
    "SGD": (lambda p: torch.optim.SGD(p, lr=LR), lambda: optax.sgd(LR)),
    "momentum": (
        lambda p: torch.optim.SGD(p, lr=LR, momentum=0.9),
        lambda: optax.sgd(LR, momentum=0.9),
    ),
    "Adam": (lambda p: torch.optim.Adam(p, lr=LR), lambda: optax.adam(LR)),
}


def on_torch(make: Any, mode: str) -> list[np.ndarray]:
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)).double()
    arrays = {n.replace("kernel", "weight"): torch.tensor(w.T) for n, w in START.items()}
    net.load_state_dict(arrays)
    optimizer = make(net.parameters())
    penalize.torch.regularize(net, RULES).attach(optimizer, mode=mode)
    for _ in range(STEPS):
        optimizer.zero_grad()
        out = net[1](net[0](torch.tensor(X)).tanh())
        nn.functional.mse_loss(out, torch.tensor(Y)).backward()
        optimizer.step()
    named = {name.replace("weight", "kernel"): w for name, w in net.named_parameters()}
    return [named[name].detach().numpy().T for name in START]


def on_jax(make: Any, mode: str) -> list[np.ndarray]:
    params = [
        {name: jnp.asarray(START[f"{i}.{name}"]) for name in ("kernel", "bias")} for i in (0, 1)
    ]
    plan = penalize.jax.regularize(params, RULES)
    given = () if mode == "gradient" else (LR,)
    ours = getattr(plan, mode)(*given)
    tx = optax.chain(*((ours, make()) if mode == "gradient" else (make(), ours)))
    state = tx.init(params)

    def loss(params: Any) -> Any:
        first, second = params
        h = jnp.tanh(X @ first["kernel"] + first["bias"])
        return jnp.mean((h @ second["kernel"] + second["bias"] - Y) ** 2)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(STEPS):
        params, state = step(params, state)
    return [np.asarray(params[int(name[0])][name[2:]]) for name in START]


@pytest.mark.parametrize("mode", ["gradient", "decoupled", "proximal"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_ten_steps(name: str, mode: str) -> None:
    in_torch, in_optax = OPTIMIZERS[name]
    for found, expected in zip(on_jax(in_optax, mode), on_torch(in_torch, mode), strict=True):
        # Decoupled decay comes before the update in one, after it in the other: from the same
        # weights both, so that only rounding differs.
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
