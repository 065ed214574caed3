"""Schedules: factors by their formulas, as numbers and traced, and strengths that follow them."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from frameworks import Jitted

import penalize
from penalize import (
    L1,
    L2,
    MCP,
    ConfigError,
    GroupLasso,
    NonNegative,
    NoStepError,
    Regularizer,
    ScheduleError,
    StrengthError,
    Sum,
    cosine,
    linear,
    piecewise,
    step,
    toward,
    warmup,
)
from penalize.schedules import why_not_a_count

SCHEDULES: dict[str, tuple[Any, Callable[[int], float]]] = {
    "warmup": (warmup(4), lambda t: min(t / 4, 1.0)),
    "linear": (linear(1.0, 0.2, 5, 2), lambda t: 1.0 - 0.8 * min(max(t - 2, 0) / 5, 1)),
    "cosine": (
        cosine(1.0, 0.2, 5),
        lambda t: 0.2 + 0.8 * (1 + math.cos(math.pi * min(t / 5, 1))) / 2,
    ),
    "step": (step(3, 0.5), lambda t: 0.5 ** (t // 3)),
    "piecewise": (
        piecewise({0: 1.0, 2: 0.5, 6: 0.0}),
        lambda t: [1.0, 0.5, 0.0][(t > 1) + (t > 5)],
    ),
}
each = pytest.mark.parametrize("name", SCHEDULES)


@each
def test_formula(name: str) -> None:
    schedule, expected = SCHEDULES[name]
    for t in range(10):
        assert schedule(t) == pytest.approx(expected(t), abs=1e-15)
        assert type(schedule(t)) is float


@each
def test_traced_integers(name: str) -> None:
    import jax.numpy as jnp
    import tensorflow as tf

    schedule, expected = SCHEDULES[name]
    jitted = Jitted(schedule)
    function = tf.function(schedule)
    compiled = torch.compile(schedule, fullgraph=True, backend="eager")
    for t in range(8):
        assert float(jitted(jnp.asarray(t))) == pytest.approx(expected(t), abs=1e-6)
        assert float(function(tf.constant(t, tf.int64))) == pytest.approx(expected(t), abs=1e-6)
        assert float(compiled(torch.tensor(t))) == pytest.approx(expected(t), abs=1e-6)
    assert jitted.traces == 1
    assert function.experimental_get_tracing_count() == 1


@each
def test_is_a_value(name: str) -> None:
    schedule, _ = SCHEDULES[name]
    public = {name: getattr(penalize, name) for name in penalize.__all__}
    assert eval(repr(schedule), public) == schedule
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    r = L1(0.1) * schedule
    assert eval(repr(r), public) == r
    assert pickle.loads(pickle.dumps(r)) == r
    assert type(r).from_config(json.loads(json.dumps(r.get_config()))) == r
    assert hash(r) == hash(L1(0.1) * schedule)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: warmup(0), "Linear got 0 steps; expected a whole number >= 1"),
        (lambda: warmup(2.5), "Linear got 2.5 steps"),
        (lambda: linear(-1.0, 1.0, 3), "Linear got the factor -1.0; expected a finite number >= 0"),
        (lambda: cosine(1.0, math.inf, 3), "Cosine got the factor inf"),
        (lambda: cosine(1.0, 0.0, 3, begin=-1), "whole number >= 0"),
        (lambda: step(3, "0.5"), "Step got the factor '0.5'"),
        (lambda: step(True, 0.5), "Step got True steps"),
        (lambda: piecewise({5: 1.0}), r"begins at 0, such as \{0: 1.0, 1000: 0.1\}"),
        (lambda: piecewise([]), "expected a mapping from step to factor"),
        (lambda: piecewise(3), "expected a mapping from step to factor"),
        (lambda: piecewise({0: -1.0}), "Piecewise got the factor -1.0"),
    ],
)
def test_bad_schedules(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        make()


# --- what they multiply ---------------------------------------------------------------------

W = np.random.default_rng(0).normal(size=(3, 4))
HALF = piecewise({0: 0.0, 1: 0.5})


@pytest.mark.parametrize(
    ("scheduled", "plain"),
    [
        (L1(0.2) * HALF, L1(0.1)),
        (HALF * L1(0.2), L1(0.1)),
        (3 * (L1(0.2) * HALF), L1(0.3)),
        (L1(0.2) * HALF * HALF, L1(0.05)),
        (L1(0.2) * HALF + L2(0.3), L1(0.1) + L2(0.3)),
        ((L1(0.2) + GroupLasso(0.4, groups=0)) * HALF, L1(0.1) + GroupLasso(0.2, groups=0)),
        (MCP(0.5) * HALF, MCP(0.5, factor=0.5)),
        (NonNegative() * HALF, NonNegative()),
        (toward(W + 1, L2(0.2) * HALF), toward(W + 1, L2(0.1))),
        (toward(W + 1, L2(0.2)) * HALF, toward(W + 1, L2(0.1))),
        (L1(0.2) * (lambda t: 0.5), L1(0.1)),
    ],
    ids=str,
)
def test_at_a_step(scheduled: Regularizer, plain: Regularizer) -> None:
    assert scheduled.scheduled
    now = scheduled.at(3)
    assert not now.scheduled
    assert float(now(W)) == pytest.approx(float(plain(W)), rel=1e-12)
    np.testing.assert_allclose(now.prox(W, 0.3), plain.prox(W, 0.3), rtol=1e-12)
    if plain.differentiable:
        np.testing.assert_allclose(now.gradient(W), plain.gradient(W), rtol=1e-12)
    assert scheduled.elementwise == plain.elementwise
    assert scheduled.differentiable == plain.differentiable
    assert scheduled.unit() == plain.unit() or isinstance(scheduled, Sum)


@pytest.mark.parametrize("r", [L1(0.2) * HALF, L1(0.2) * HALF + L2(0.1)], ids=str)
def test_without_a_step(r: Regularizer) -> None:
    for use in (r, r.gradient, r.pull, lambda w: r.prox(w, 1.0)):
        with pytest.raises(
            NoStepError, match=r"follows a schedule, and is asked for without a ste"
        ):
            use(W)


def test_a_factor_that_is_none() -> None:
    with pytest.raises(StrengthError, match="factor at step 7=-1"):
        (L1(0.2) * (lambda t: -1)).at(7)


def test_what_is_no_schedule() -> None:
    for bad in (L1, L1(1.0), "warmup"):
        with pytest.raises(TypeError):
            L1(0.1) * bad


def test_a_function_is_not_read_back() -> None:
    r = L1(0.2) * math.sqrt
    assert repr(r) == "L1(0.2) * sqrt"
    config = r.get_config()
    assert config["schedule"] == {"schedule": "function", "name": "math.sqrt"}
    with pytest.raises(ConfigError, match="and a function is not saved"):
        type(r).from_config(config)
    with pytest.raises(ConfigError, match="it needs a regularizer and a schedule"):
        type(r).from_config({"regularizer": 3})
    with pytest.raises(ConfigError, match="unexpected keyword"):
        type(r).from_config({**config, "schedule": {"schedule": "step", "whenever": 3}})


@pytest.mark.parametrize("steps", [0, 1, 2**53])
def test_a_count_of_steps(steps: int) -> None:
    assert why_not_a_count(steps) == ""


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (True, "True is a bool, and no whole number"),
        (1.0, "1.0 is a float"),
        (None, "None is a NoneType"),
        (np.ones(1), "is a ndarray"),
        (-1, "-1 steps were never taken: expected a number from 0 to"),
        (10**30, "steps were never taken"),
    ],
)
def test_what_is_no_count_of_steps(steps: Any, said: str) -> None:
    assert said in why_not_a_count(steps)
