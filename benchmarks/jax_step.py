"""What a penalty costs in a jitted train step of JAX: ours beside the one written by hand.

Each pair of steps is compiled in this process and run in turns, so that both meet the same machine;
what is compared is the ratio within each turn. XLA's own cost analysis counts operations and bytes.
Prints a table and writes it beside this file.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from penalize import L1, L2, GroupLasso, Regularizer
from penalize.jax import regularize

RESULTS = Path(__file__).parent / "results" / "jax_step.md"
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
    """Seconds of each step in each turn; the order changes from turn to turn."""
    params = make()
    for step, state in steps:
        jax.block_until_ready(step(params, state))
    taken: list[list[float]] = [[] for _ in steps]
    for turn in range(TURNS):
        order = list(range(len(steps)))
        for i in order if turn % 2 else reversed(order):
            step, state = steps[i]
            start = time.perf_counter()
            jax.block_until_ready(step(params, state))
            taken[i].append(time.perf_counter() - start)
    return taken


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
        ratios = [a / b for a, b in zip(seconds, reference, strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4)
        our_flops, our_bytes = cost(step)
        cells = [
            pair.name,
            name,
            f"**{median:.2f}** ({low:.2f} to {high:.2f})",
            f"{our_flops / flops:.3f}",
            f"{our_bytes / moved:.3f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def report() -> str:
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
        "found by a fixed number of passes over the weights. Nobody writes that by hand.",
        "",
        f"Python {platform.python_version()}, JAX {jax.__version__}, optax {optax.__version__}, "
        f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    text = report()
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(text, "utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
