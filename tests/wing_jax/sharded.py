"""Run by test_sharded.py, in a process with several devices: parameters sharded along both axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from penalize import L1, L2, GroupLasso, ModelError, Orthogonal
from penalize.jax import Plan, regularize

RULES: dict[str, Any] = {
    "rows": GroupLasso(0.1, groups=0),
    "columns": GroupLasso(0.1, groups=1) + L1(0.02),
    "partition": GroupLasso(0.1, groups=[list(range(i, 64, 5)) for i in range(5)]),
    "elements": L1(0.05) + L2(0.1),
}
MODES: dict[str, Any] = {
    "gradient": lambda plan: optax.chain(plan.gradient(), optax.adam(0.05)),
    "decoupled": lambda plan: optax.chain(optax.adam(0.05), plan.decoupled(0.05)),
    "proximal": lambda plan: optax.chain(optax.adam(0.05), plan.proximal(0.05)),
}
_rng = np.random.default_rng(0)
PARAMS = {name: jnp.asarray(_rng.normal(size=(8, 8))) for name in RULES}
STEPS = 5
TARGET = jnp.asarray(_rng.normal(size=(8, 8)) / 4)


def train(plan: Plan, make: Any, params: Any) -> Any:
    tx = make(plan)
    state = jax.jit(tx.init)(params)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        slopes = jax.grad(lambda p: sum(((w - TARGET) ** 2).sum() for w in p.values()))(params)
        updates, state = tx.update(slopes, state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(STEPS):
        params, state = step(params, state)
    return params


def same(found: Any, expected: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12), found, expected)


def check(plan: Plan, mesh: Mesh, spec: P, modes: Sequence[str] = ()) -> None:
    """Value, gradient, prox, and some steps in these modes."""
    sharding = NamedSharding(mesh, spec)
    sharded = jax.device_put(PARAMS, sharding)

    def functions(params: Any) -> Any:
        return jax.value_and_grad(plan.penalty)(params), plan.prox(params, 0.5)

    same(jax.jit(functions)(sharded), jax.jit(functions)(PARAMS))
    for mode in modes:
        found = train(plan, MODES[mode], sharded)
        same(found, train(plan, MODES[mode], PARAMS))
        assert all(w.sharding.is_equivalent_to(sharding, 2) for w in found.values())


def check_within_shard_map(plan: Plan, mesh: Mesh) -> None:
    """There a function sees one shard, whose penalty is that of nothing: refused."""

    def within(spec: P) -> Any:
        return jax.shard_map(plan.penalty, mesh=mesh, in_specs=spec, out_specs=P())(PARAMS)

    same(within(P()), plan.penalty(PARAMS))  # every device has the whole
    with pytest.raises(ModelError, match=r"shape \(4, 8\) here, and \(8, 8\) where it was plan"):
        within(P("x", None))


def check_a_loop_within_shard_map(mesh: Mesh) -> None:
    """A root per row, which a loop finds: each device has rows of its own."""
    rows, steps = GroupLasso(0.1, groups=0), jnp.exp(TARGET)
    spec = P("x", None)
    shrink = jax.shard_map(rows.prox, mesh=mesh, in_specs=(spec, spec), out_specs=spec)
    same(jax.jit(shrink)(TARGET, steps), rows.prox(np.asarray(TARGET), np.asarray(steps)))


def main() -> None:
    devices = np.array(jax.devices())
    assert len(devices) == 4
    plan = regularize(PARAMS, RULES)
    pair = Mesh(devices[:2], ("x",))
    check(plan, pair, P("x", None))
    check(plan, pair, P(None, "x"), ["gradient"])
    check(plan, Mesh(devices.reshape(2, 2), ("x", "y")), P("x", "y"), list(MODES))
    check_within_shard_map(plan, pair)
    check_a_loop_within_shard_map(pair)
    orthogonal = regularize(PARAMS, {"rows": Orthogonal(0.5)})
    sharded = jax.device_put(PARAMS, NamedSharding(pair, P("x", None)))
    same(jax.jit(jax.grad(orthogonal.penalty))(sharded), jax.grad(orthogonal.penalty)(PARAMS))


if __name__ == "__main__":
    main()
