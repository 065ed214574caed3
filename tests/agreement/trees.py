"""On JAX: a dictionary of arrays, and a step under ``jax.jit``."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from agreement.problem import CLASSES, EPSILON, RATE, START, STEPS, TOKENS, Run
from penalize.jax import Plan, regularize

Params = dict[str, Any]


def make() -> Params:
    tree: Params = {}
    for name, start in START.items():
        *path, own = name.split(".")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[own] = jnp.asarray(start)
    return tree


def as_named(params: Params) -> dict[str, np.ndarray]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(w)
        for path, w in jax.tree_util.tree_leaves_with_path(params)
    }


def data_loss(params: Params) -> Any:
    encoder, norm, hidden, head = (params[n] for n in ("encoder", "norm", "hidden", "head"))
    x = encoder["tokens"]["embeddings"][TOKENS]
    x = jax.lax.conv_general_dilated(
        x, encoder["conv"]["kernel"], (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC")
    )
    x = jax.nn.sigmoid(x + encoder["conv"]["bias"])
    x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + EPSILON)
    x = (x * norm["gamma"] + norm["beta"]).reshape(len(TOKENS), -1)
    x = jax.nn.sigmoid(x @ hidden["kernel"] + hidden["bias"])
    logits = x @ head["kernel"] + head["bias"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, CLASSES).mean()


def loss_term(rules: Any) -> Run:
    plan = regularize(make(), rules)
    return train(plan, optax.sgd(RATE), in_loss=True)


def chained(rules: Any) -> Run:
    plan = regularize(make(), rules)
    return train(plan, optax.chain(plan.gradient(), optax.sgd(RATE)), in_loss=False)


def train(plan: Plan, tx: Any, in_loss: bool) -> Run:
    params = make()
    state = tx.init(params)
    start = float(plan.penalty(params))

    def loss(params: Params) -> Any:
        return data_loss(params) + (plan.penalty(params) if in_loss else 0.0)

    @jax.jit
    def step(params: Params, state: Any) -> Any:
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    steps = []
    for _ in range(STEPS):
        params, state = step(params, state)
        steps.append(as_named(params))
    return Run(start, {row.name: repr(row.regularizer) for row in plan.rows}, steps)
