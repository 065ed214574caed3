"""What a penalty costs in a jitted train step of JAX: ours beside the one written by hand.

Each pair of steps is compiled in this process and run in turns, so that both meet the same machine;
what is compared is the ratio within each turn. XLA's own cost analysis counts operations and bytes.
Prints a table and writes it beside this file.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from timing import Work, interleaved, machine, ratios, shown, write

from penalize import L1, L2, GroupLasso, Regularizer
from penalize.jax import regularize

with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
    from jaxopt.prox import prox_group_lasso, prox_lasso  # no longer maintained, and still used

WIDTH, LAYERS, BATCH, RATE, TURNS = 512, 6, 128, 1e-3, 60

Params = list[dict[str, Any]]
Step = Callable[[Params, Any], tuple[Params, Any]]


class Pair(NamedTuple):
    """One penalty: as it is written by hand in a loss, and by one of ours."""

    name: str
    by_hand: Callable[[Any], Any]
    """Of one kernel, in the loss; None where there is no such way."""

    regularizer: Regularizer


def group_lasso(w: Any) -> Any:
    squares = (w**2).sum(0)
    lengths = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)
    return 1e-4 * WIDTH**0.5 * lengths.sum()


PAIRS = [
    Pair("L2", lambda w: 1e-4 * (w**2).sum(), L2(1e-4)),
    Pair("L1", lambda w: 1e-4 * jnp.abs(w).sum(), L1(1e-4)),
    Pair("group lasso", group_lasso, GroupLasso(1e-4, groups="outputs")),
]


def make() -> Params:
    keys = jax.random.split(jax.random.key(0), LAYERS)
    scale = WIDTH**-0.5
    return [
        {"kernel": scale * jax.random.normal(key, (WIDTH, WIDTH)), "bias": jnp.zeros(WIDTH)}
        for key in keys
    ]


X = jax.random.normal(jax.random.key(1), (BATCH, WIDTH))


def data_loss(params: Params) -> Any:
    x = X
    for layer in params:
        x = jnp.tanh(x @ layer["kernel"] + layer["bias"])
    return (x**2).mean()


def compiled(tx: Any, penalty: Callable[[Params], Any] | None) -> Any:
    """The step, compiled ahead: also what XLA says of its cost is of this program."""

    def loss(params: Params) -> Any:
        return data_loss(params) + (0.0 if penalty is None else penalty(params))

    def step(params: Params, state: Any) -> tuple[Params, Any]:
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    params = make()
    return jax.jit(step).lower(params, tx.init(params)).compile(), tx.init(params)


def cost(step: Any) -> tuple[float, float]:
    """Floating-point operations and bytes, by XLA's analysis."""
    found = step.cost_analysis()
    found = found[0] if isinstance(found, list) else found
    return float(found["flops"]), float(found["bytes accessed"])


def times(steps: list[tuple[Any, Any]]) -> list[list[float]]:
    """Seconds of each step in each turn."""
    params = make()
    works = {
        str(i): Work(lambda step=step, state=state: jax.block_until_ready(step(params, state)))
        for i, (step, state) in enumerate(steps)
    }
    return list(interleaved(works, TURNS).values())


def rows(pair: Pair) -> list[str]:
    """The loss by hand, and three of ours against it."""
    plan = regularize(make(), pair.regularizer)
    adam = optax.adam(RATE)
    by_hand = compiled(adam, lambda params: sum(pair.by_hand(w["kernel"]) for w in params))
    ours = {
        "`loss + plan.penalty(params)`": compiled(adam, plan.penalty),
        "`plan.gradient()`": compiled(optax.chain(plan.gradient(), adam), None),
        "`plan.decoupled(lr)`": compiled(optax.chain(adam, plan.decoupled(RATE)), None),
        "`plan.proximal(lr)`": compiled(optax.chain(adam, plan.proximal(RATE)), None),
    }
    floor = compiled(adam, None)
    reference, *taken, bare = times([by_hand, *ours.values(), floor])
    flops, moved = cost(by_hand[0])
    lines = []
    for name, (step, _), seconds in zip(
        [*ours, "no penalty"], [*ours.values(), floor], [*taken, bare], strict=True
    ):
        our_flops, our_bytes = cost(step)
        cells = [
            pair.name,
            name,
            shown(ratios(seconds, reference)),
            f"{our_flops / flops:.3f}",
            f"{our_bytes / moved:.3f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def shrunk_by_hand(shrink: Callable[[Any], Any]) -> optax.GradientTransformation:
    """An operator of jaxopt behind the updates, on kernels alone."""

    def update(updates: Any, state: Any, params: Any) -> tuple[Any, Any]:
        moved = optax.apply_updates(params, updates)
        return [
            {"kernel": shrink(new["kernel"]) - old["kernel"], "bias": change["bias"]}
            for new, old, change in zip(moved, params, updates, strict=True)
        ], state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def proximal_rows() -> list[str]:
    """SGD and a proximal step: ours against jaxopt's operators."""
    by_group = jax.vmap(lambda w: prox_group_lasso(w, 1e-4 * WIDTH**0.5, RATE), 1, 1)
    hands: dict[str, Callable[[Any], Any]] = {
        "L1": lambda w: prox_lasso(w, 1e-4, RATE),
        "group lasso": by_group,
    }
    sgd = optax.sgd(RATE)
    lines = []
    for name, shrink in hands.items():
        regularizer = next(pair.regularizer for pair in PAIRS if pair.name == name)
        plan = regularize(make(), regularizer)
        theirs = compiled(optax.chain(sgd, shrunk_by_hand(shrink)), None)
        ours = compiled(optax.chain(sgd, plan.proximal(RATE)), None)
        reference, taken = times([theirs, ours])
        counts = [f"{a / b:.3f}" for a, b in zip(cost(ours[0]), cost(theirs[0]), strict=True)]
        lines.append(f"| {' | '.join([name, shown(ratios(taken, reference)), *counts])} |")
    return lines


def main() -> None:
    size = LAYERS * WIDTH * (WIDTH + 1)
    lines = [
        "# A train step of JAX",
        "",
        f"Adam on {LAYERS} dense layers of {WIDTH} × {WIDTH} ({size:,} parameters), a batch of",
        f"{BATCH}, all in one `jax.jit`. Each line is divided by the same step with the penalty",
        "written by hand in the loss: run times as the median and the quartiles of the ratios of",
        f"{TURNS} turns, operations and bytes as XLA counts them. Written by `make bench`.",
        "",
        "| penalty | how it is applied | time | operations | bytes |",
        "| --- | --- | ---: | ---: | ---: |",
        *(line for pair in PAIRS for line in rows(pair)),
        "",
        "A group lasso under Adam has one step per element: each group is a one-dimensional root,",
        "found in a few passes over the weights, in a loop that ends when it is. Nobody writes",
        "that by hand.",
        "",
        "A proximal step after SGD, divided by the same with jaxopt's operators:",
        "",
        "| penalty | time | operations | bytes |",
        "| --- | ---: | ---: | ---: |",
        *proximal_rows(),
        "",
        f"{machine()}, JAX {jax.__version__}, optax {optax.__version__}.",
    ]
    write("jax_step.md", lines)


if __name__ == "__main__":
    main()
