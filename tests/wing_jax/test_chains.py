"""What is assumed of optax: how its chains run, and what its transforms close over.

optax promises none of it. If a release changes it, these tests say what has to follow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from penalize import L1, L2, OptimizerError
from penalize.jax import chains, regularize
from penalize.jax.chains import Link, Position, place

PARAMS = {"a": jnp.ones(2), "b": jnp.ones(3)}


def seen(make: Callable[[Any], Any], names: frozenset[str] = frozenset("ab")) -> Position:
    """The place of a transform in what is made around it."""
    places: list[Position] = []

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        places.append(place(params, names))
        return updates, state

    tx = make(optax.GradientTransformation(lambda params: optax.EmptyState(), update))
    tx = tx.gradient_transformation() if isinstance(tx, optax.MultiSteps) else tx
    jax.jit(tx.update)(PARAMS, tx.init(PARAMS), PARAMS)
    return places[0]


def kinds(links: list[Link]) -> list[str]:
    return [link.kind for link in links]


# What steps.py reads of each: the names in the closure, and those of the state.
READ: dict[str, tuple[Callable[[], Any], dict[str, tuple[set[str], set[str]]]]] = {
    "sgd": (
        lambda: optax.sgd(0.1, momentum=0.9),
        {"trace": ({"decay"}, set()), "scale": ({"step_size"}, set())},
    ),
    "schedule": (
        lambda: optax.sgd(lambda count: 0.1),
        {"identity": (set(), set()), "scale_by_schedule": ({"step_size_fn"}, {"count"})},
    ),
    "adam": (
        lambda: optax.adam(0.1),
        {
            "scale_by_adam": ({"b1", "b2", "eps", "eps_root", "nesterov"}, {"count", "nu"}),
            "scale": ({"step_size"}, set()),
        },
    ),
    "adamw": (
        lambda: optax.adamw(0.1),
        {
            "scale_by_adam": ({"b1", "b2", "eps", "eps_root", "nesterov"}, {"count", "nu"}),
            "add_decayed_weights": ({"weight_decay"}, set()),
            "scale": ({"step_size"}, set()),
        },
    ),
    "amsgrad": (
        lambda: optax.amsgrad(0.1),
        {
            "scale_by_amsgrad": (
                {"eps", "eps_root", "bias_correction_mu", "bias_correction_nu"},
                {"nu_max"},
            ),
            "scale": ({"step_size"}, set()),
        },
    ),
    "adamax": (
        lambda: optax.adamax(0.1),
        {"scale_by_adamax": (set(), {"nu"}), "scale": ({"step_size"}, set())},
    ),
    "adagrad": (
        lambda: optax.adagrad(0.1),
        {"scale_by_rss": ({"eps"}, {"sum_of_squares"}), "scale": ({"step_size"}, set())},
    ),
    "rmsprop": (
        lambda: optax.rmsprop(0.1, bias_correction=True),
        {
            "scale_by_rms": (
                {"decay", "eps", "eps_in_sqrt", "bias_correction"},
                {"count", "nu"},
            ),
            "scale": ({"step_size"}, set()),
            "identity": (set(), set()),
        },
    ),
}


@pytest.mark.parametrize(("make", "expected"), READ.values(), ids=READ)
def test_what_is_read_of_optimizers(make: Any, expected: Any) -> None:
    found = seen(lambda probe: optax.chain(make(), probe))
    assert found.chained
    assert not found.after
    assert kinds(found.before) == list(expected)
    for link in found.before:
        settings, state = expected[link.kind]
        assert settings <= link.settings.keys()
        assert all(hasattr(link.state, name) for name in state)


def test_states_before_are_those_after_the_update() -> None:
    found = seen(lambda probe: optax.chain(optax.sgd(lambda count: 0.1), probe))
    assert isinstance(found.before[-1].state.count, jax.core.Tracer)  # no longer an input


def test_both_sides() -> None:
    found = seen(lambda probe: optax.chain(optax.clip(1.0), probe, optax.adam(0.1)))
    assert kinds(found.before) == ["clip"]
    assert kinds(found.after) == ["scale_by_adam", "scale"]


@pytest.mark.parametrize(
    "around",
    [
        lambda probe: optax.chain(optax.chain(optax.clip(1.0)), optax.chain(probe, optax.sgd(0.1))),
        lambda probe: optax.named_chain(
            ("clip", optax.clip(1.0)),
            ("rest", optax.named_chain(("probe", probe), ("sgd", optax.sgd(0.1)))),
        ),
        lambda probe: optax.chain(
            optax.clip(1.0),
            optax.masked(optax.chain(probe, optax.sgd(0.1)), {"a": True, "b": True}),
        ),
        lambda probe: optax.apply_if_finite(optax.chain(optax.clip(1.0), probe, optax.sgd(0.1)), 2),
        lambda probe: optax.MultiSteps(optax.chain(optax.clip(1.0), probe, optax.sgd(0.1)), 2),
        lambda probe: optax.chain(
            optax.clip(1.0), probe, optax.masked(optax.sgd(0.1), lambda p: dict.fromkeys(p, True))
        ),
        lambda probe: optax.chain(
            optax.clip(1.0),
            probe,
            optax.partition({0: optax.sgd(0.1), 1: optax.adam(0.1)}, {"a": 0, "b": 0}),
        ),
        lambda probe: optax.chain(
            optax.clip(1.0), probe, optax.inject_hyperparams(optax.sgd)(learning_rate=0.1)
        ),
    ],
)
def test_what_wraps_is_seen_through(around: Any) -> None:
    found = seen(around)
    assert found.chained
    assert not found.around
    assert kinds(found.before) == ["clip"]
    assert kinds(found.after) == ["identity", "scale"]


def test_masks_are_seen_as_they_are_for_these_parameters() -> None:
    def around(probe: Any) -> Any:
        first = optax.masked(optax.adam(0.1), {"a": True, "b": False})
        return optax.chain(first, probe)

    assert kinds(seen(around, frozenset("a")).before) == ["scale_by_adam", "scale"]
    assert kinds(seen(around, frozenset("b")).before) == []
    assert kinds(seen(around).before) == ["masked"]


def test_injected_settings_are_the_present_ones() -> None:
    def around(probe: Any) -> Any:
        return optax.chain(optax.inject_hyperparams(optax.sgd)(learning_rate=0.1), probe)

    *_, link = seen(around).before
    assert link.kind == "scale"
    assert isinstance(link.settings["step_size"], jax.core.Tracer)


def test_what_keeps_parameters_of_its_own() -> None:
    from optax import contrib

    found = seen(lambda probe: contrib.schedule_free(optax.chain(optax.sgd(0.1), probe), 0.1))
    assert found.around == ["schedule_free"]
    found = seen(lambda probe: optax.conditionally_transform(probe, lambda step: step > -1))
    assert found.around == ["conditionally_transform"]


def test_alone() -> None:
    assert seen(lambda probe: probe) == Position([], [], [], False)


# --- an optax that is built otherwise -------------------------------------------------------


def with_code(tx: optax.GradientTransformation, code: CodeType) -> Any:
    """A transform that does the same, with the code of its update exchanged."""
    old: Any = tx.update
    update = FunctionType(code, old.__globals__, old.__name__, old.__defaults__, old.__closure__)
    update.__kwdefaults__, update.__qualname__ = old.__kwdefaults__, old.__qualname__
    update.__module__ = old.__module__
    return optax.GradientTransformationExtraArgs(tx.init, update)


def rebuilt(tx: Any) -> Any:
    """What the update closes over has other names."""
    code = tx.update.__code__
    return with_code(tx, code.replace(co_freevars=tuple(f"{n}_" for n in code.co_freevars)))


def chained(*parts: Any) -> Any:
    """A chain whose local variable has another name."""
    tx = optax.chain(*parts)
    code: CodeType = tx.update.__code__  # type: ignore[attr-defined]
    names = tuple("others" if name == "new_state" else name for name in code.co_varnames)
    return with_code(tx, code.replace(co_varnames=names))


UNREADABLE: dict[str, tuple[Callable[[], Any], str]] = {
    "scale": (lambda: rebuilt(optax.scale(-0.1)), "The scale of optax .* has no 'step_size'"),
    "trace": (
        lambda: optax.chain(rebuilt(optax.trace(0.9)), optax.scale(-0.1)),
        "The trace of optax .* has no 'decay'",
    ),
    "masked": (
        lambda: rebuilt(optax.masked(optax.sgd(0.1), {"a": True, "b": True})),
        "The masked of optax .* has no 'mask'",
    ),
    "inject_hyperparams": (
        lambda: rebuilt(optax.inject_hyperparams(optax.sgd)(learning_rate=0.1)),
        "The inject_hyperparams of optax .* has no 'inner_factory'",
    ),
    "with_extra_args_support": (
        lambda: optax.chain(rebuilt(optax.with_extra_args_support(optax.sgd(0.1)))),
        "of optax .* has no '(tx|update_fns)'",
    ),
}


@pytest.mark.parametrize(("make", "message"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_named_otherwise_is_refused_or_done_without(make: Any, message: str) -> None:
    """What only checks goes on; what has to know the step, or its place, says what is missing."""
    plan = regularize(PARAMS, {"a": L1(0.1), "b": L2(0.2)})
    tx = optax.chain(plan.gradient(), make())
    found, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    assert found["b"] == pytest.approx(-0.1 * (1 + 0.4))
    tx = optax.chain(make(), plan.proximal(0.1))
    with pytest.raises(OptimizerError, match=message) as caught:
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    assert "use plan.gradient(), or plan.penalty(params) in the loss" in str(caught.value)


def test_states_that_are_built_otherwise() -> None:
    @dataclass
    class State:
        steps: Any

    def init(params: Any) -> State:
        return State(inner.init(params).count)

    def update(updates: Any, state: State, params: Any = None) -> Any:
        rate = step_size_fn(state.steps)
        return jax.tree.map(lambda u: rate * u, updates), State(state.steps + 1)

    def step_size_fn(count: Any) -> Any:
        return -0.1

    inner = optax.scale_by_schedule(step_size_fn)
    update.__qualname__, update.__module__ = inner.update.__qualname__, inner.update.__module__
    tx = optax.chain(
        optax.GradientTransformation(init, update), regularize(PARAMS, {"a": L1(0.1)}).proximal(0.1)
    )
    message = r"The state of scale_by_schedule of optax .* has no 'count'"
    with pytest.raises(OptimizerError, match=message):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)


def test_a_chain_with_other_local_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = regularize(PARAMS, {"a": L1(0.1), "b": L2(0.2)})
    first = chained(plan.gradient(), optax.scale(-0.1))
    monkeypatch.setattr(chains, "_CHAIN", first.update.__code__)
    found, _ = first.update(PARAMS, first.init(PARAMS), PARAMS)
    assert found["b"] == pytest.approx(-0.1 * (1 + 0.4))
    for ours in (plan.proximal(0.1), plan.decoupled(0.1)):
        last = chained(optax.scale(-0.1), ours)
        monkeypatch.setattr(chains, "_CHAIN", last.update.__code__)
        with pytest.raises(OptimizerError, match=r"The chain of optax .* has no 'new_state'"):
            last.update(PARAMS, last.init(PARAMS), PARAMS)
