"""A run that Orbax saved in the middle, restored in new objects, ends with the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from wing_jax.loops import LOOPS, LR, InLinen, Weights, Wrap

from penalize import L1, L2, toward
from penalize.jax import regularize
from penalize.schedules import warmup

RULES = L1(0.5) * warmup(100) + L2(0.01)
AVERAGES: Wrap = lambda plan: plan.halfspace(optax.adam(LR), average=0.9)  # noqa: E731
MODES: dict[str, Wrap] = {
    "gradient": lambda plan: optax.chain(plan.gradient(), optax.adam(LR)),
    "proximal": lambda plan: optax.chain(optax.adam(LR), plan.proximal(LR)),
    "halfspace": AVERAGES,
}
FIRST, LAST = 6, 4
each_loop = pytest.mark.parametrize("loop", LOOPS)


@pytest.fixture
def orbax() -> Iterator[ocp.StandardCheckpointer]:
    with ocp.StandardCheckpointer() as checkpointer:
        yield checkpointer


def same(found: Weights, expected: Weights) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@each_loop
@pytest.mark.parametrize("mode", MODES)
def test_resumed(loop: str, mode: str, orbax: Any, tmp_path: Path) -> None:
    """In the middle of the schedule, and of the averages."""
    run = LOOPS[loop](MODES[mode], RULES)
    run.train(FIRST)
    orbax.save(tmp_path / "run", run.state)
    orbax.wait_until_finished()
    run.train(LAST)
    new = LOOPS[loop](MODES[mode], RULES, seed=1)
    new.state = orbax.restore(tmp_path / "run", new.state)
    new.train(LAST)
    assert same(new.weights, run.weights)


def test_weights_alone_go_on_with_another_penalty(orbax: Any, tmp_path: Path) -> None:
    """What is naive: SGD has no state, and so the plan's seems to be none either."""
    run = InLinen(lambda plan: optax.chain(plan.gradient(), optax.sgd(LR)), RULES)
    run.train(FIRST)
    new = InLinen(lambda plan: optax.chain(plan.gradient(), optax.sgd(LR)), RULES, seed=1)
    orbax.save(tmp_path / "params", run.state.params)
    orbax.wait_until_finished()
    params = orbax.restore(tmp_path / "params", new.state.params)
    new.state = new.state.replace(params=params)
    assert same(new.weights, run.weights)
    run.train(LAST)
    new.train(LAST)
    assert not same(new.weights, run.weights)


def test_another_mode_is_another_tree(orbax: Any, tmp_path: Path) -> None:
    orbax.save(tmp_path / "run", InLinen(MODES["gradient"], RULES).state)
    orbax.wait_until_finished()
    with pytest.raises(ValueError, match="tree structures do not match:\nopt_state"):
        orbax.restore(tmp_path / "run", InLinen(MODES["halfspace"], RULES).state)


def test_an_anchor_is_the_start_that_was_planned(orbax: Any, tmp_path: Path) -> None:
    """A plan of the restored weights would pull toward these, and nothing would say so."""
    rules = toward("start", L2(0.5))

    def resumed(start: Any) -> Weights:
        """With the plan of these weights, in the place of the first run's."""
        plan = regularize(start, rules)
        new = InLinen(lambda _: optax.chain(plan.gradient(), optax.sgd(LR)), rules, seed=1)
        new.state = orbax.restore(tmp_path / "run", new.state)
        new.train(LAST)
        return new.weights

    run = InLinen(lambda plan: optax.chain(plan.gradient(), optax.sgd(LR)), rules)
    start = run.state.params
    run.train(FIRST)
    middle = run.state.params
    orbax.save(tmp_path / "run", run.state)
    orbax.wait_until_finished()
    run.train(LAST)
    assert same(resumed(start), run.weights)
    assert not same(resumed(middle), run.weights)
