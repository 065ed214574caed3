"""A penalty in the loss beside a transform, however the loss was differentiated; line searches.

Steps are traced and not run: what is refused is refused then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from optax import contrib

from penalize import L1, L2, AppliedTwiceError, OptimizerError
from penalize.jax import regularize

Params = dict[str, Any]
START: Params = {"hidden": {"kernel": jnp.ones((3, 2))}, "out": {"kernel": jnp.ones((2, 1))}}
X = jnp.ones((4, 3))
PLAN = regularize(START, {"hidden": L1(0.1), "out": L2(0.2)})


def data_loss(params: Params) -> Any:
    return jnp.mean((X @ params["hidden"]["kernel"] @ params["out"]["kernel"]) ** 2)


def loss(params: Params) -> Any:
    return data_loss(params) + PLAN.penalty(params)


def in_cond(params: Params) -> Any:
    return jax.lax.cond(jnp.sum(X) > 0, loss, data_loss, params)


def rounded(params: Params) -> Any:
    half = jax.tree.map(lambda w: w.astype(jnp.bfloat16), params)
    return jax.tree.map(lambda g: g.astype(jnp.float32), jax.grad(loss)(half))


def raveled(params: Params) -> Any:
    flat, unravel = ravel_pytree(params)
    return unravel(jax.grad(lambda flat: loss(unravel(flat)))(flat))


def accumulated(params: Params) -> Any:
    def add(total: Any, x: Any) -> Any:
        gradients = jax.grad(lambda p: loss(p) * x.sum())(params)
        return jax.tree.map(jnp.add, total, gradients), None

    return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), X)[0]


def repeated(params: Params) -> Any:
    def add(_: Any, total: Any) -> Any:
        return jax.tree.map(jnp.add, total, jax.grad(loss)(params))

    bound = jnp.asarray(3)  # a traced one is a loop without a known end
    return jax.lax.fori_loop(0, bound, add, jax.tree.map(jnp.zeros_like, params))


WAYS: dict[str, Callable[[Params], Any]] = {
    "grad": jax.grad(loss),
    "jit": jax.grad(jax.jit(loss)),
    "grad in jit": jax.jit(jax.grad(loss)),
    "jit in jit": jax.jit(jax.grad(jax.jit(loss))),
    "checkpoint": jax.grad(jax.checkpoint(loss)),
    "checkpoint in jit": jax.jit(jax.grad(jax.checkpoint(jax.jit(loss)))),
    "jacfwd": jax.jacfwd(loss),
    "jacrev": jax.jacrev(loss),
    "cond": jax.grad(in_cond),
    "bfloat16": rounded,
    "raveled": raveled,
    "scan": accumulated,
    "fori_loop": repeated,
}


def traced(gradients: Callable[[Params], Any], tx: Any, step_of: Any = lambda step: step) -> None:
    def step(params: Params, state: Any) -> Any:
        return tx.update(gradients(params), state, params)

    jax.make_jaxpr(step_of(step))(START, tx.init(START))


@pytest.mark.parametrize("gradients", WAYS.values(), ids=WAYS)
def test_a_loss_term_is_seen(gradients: Any) -> None:
    tx = optax.chain(PLAN.gradient(), optax.sgd(0.1))
    with pytest.raises(AppliedTwiceError, match=r"on 'hidden\.kernel', 'out\.kernel' would.*loss"):
        traced(gradients, tx)


PART = regularize(START["out"], L2(0.2))
OTHER_STRENGTHS = regularize(START, {"hidden": L1(7.0)})
OTHERS: dict[str, Callable[[Params], Any]] = {
    "jvp": lambda params: jax.jvp(jax.grad(loss), (params,), (params,))[1],
    "the root of a tree": jax.grad(lambda params: PART.penalty(params["out"])),
    "other strengths": jax.grad(jax.jit(OTHER_STRENGTHS.penalty)),
}


@pytest.mark.parametrize("gradients", OTHERS.values(), ids=OTHERS)
def test_a_loss_term_is_seen_of_the_same_arrays(gradients: Any) -> None:
    with pytest.raises(AppliedTwiceError, match=r"plan\.penalty\(params\) in the loss"):
        traced(gradients, optax.chain(PLAN.gradient(), optax.sgd(0.1)))


def test_a_loss_term_is_seen_of_many_models_at_once() -> None:
    def of_two(step: Any) -> Any:
        def both(params: Params, state: Any) -> Any:
            stacked = jax.tree.map(lambda w: jnp.stack([w, w]), params)
            return jax.vmap(step, (0, None))(stacked, state)

        return both

    with pytest.raises(AppliedTwiceError, match=r"plan\.penalty\(params\) in the loss"):
        traced(jax.grad(loss), optax.chain(PLAN.gradient(), optax.sgd(0.1)), of_two)


def gradients_of_two(params: Params) -> Any:
    """Those of another model with the same names, of which this one's loss is a function."""
    theirs = jax.tree.map(lambda w: w + 1.0, START)
    theirs = jax.tree.map(lambda w, x: w * jnp.ones_like(x), theirs, params)

    def update(other: Params) -> Params:
        return jax.tree.map(lambda w, g: w - 0.1 * g, other, jax.jit(jax.grad(loss))(other))

    return jax.grad(lambda p: data_loss(p) * data_loss(update(theirs)))(params)


def clipped(params: Params) -> Any:
    """The gradient of the one penalty is a factor of all."""
    one = regularize(START, {"hidden": L2(0.2)})
    gradients = jax.grad(lambda p: data_loss(p) + one.penalty(p))(params)
    norm = sum(jnp.sum(g**2) for g in jax.tree.leaves(gradients))
    return jax.tree.map(lambda g: g / norm, gradients)


def reported(params: Params) -> Any:
    """A penalty's gradient that does not get to the updates, out of the same function."""

    @jax.jit
    def both(params: Params) -> Any:
        slopes = jax.tree.leaves(jax.grad(PLAN.penalty)(params))
        return jax.grad(data_loss)(params), sum(jnp.sum(g**2) for g in slopes)

    return both(params)[0]


@pytest.mark.parametrize("gradients", [gradients_of_two, clipped, reported])
def test_a_penalty_of_other_arrays_is_no_second_door(gradients: Any) -> None:
    plan = regularize(START, {"out": L2(0.2)}) if gradients is clipped else PLAN
    traced(gradients, optax.chain(plan.gradient(), optax.sgd(0.1)))


def test_marks_change_no_number() -> None:
    for gradients in (jax.grad(loss), jax.jit(jax.jacfwd(jax.checkpoint(loss)))):
        found = gradients(START)
        np.testing.assert_allclose(
            found["out"]["kernel"], jax.grad(data_loss)(START)["out"]["kernel"] + 0.4, rtol=1e-6
        )
    _, along = jax.jvp(jax.grad(PLAN.penalty), (START,), (START,))
    np.testing.assert_allclose(along["out"]["kernel"], 0.4 * START["out"]["kernel"], rtol=1e-6)


# --- what goes by the value of the loss -----------------------------------------------------

SEARCHES: dict[str, Callable[[], Any]] = {
    "lbfgs": optax.lbfgs,
    "zoom": lambda: optax.chain(optax.sgd(1.0), optax.scale_by_zoom_linesearch(5)),
    "backtracking": lambda: optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(5)),
    "polyak": lambda: optax.polyak_sgd(),
    "in a mask": lambda: optax.masked(optax.lbfgs(), {"hidden": True, "out": False}),
    "in a wrapper": lambda: optax.apply_if_finite(optax.lbfgs(), 3),
}


def searched(tx: Any, objective: Any) -> Any:
    def step(params: Params, state: Any) -> Any:
        value, gradients = jax.value_and_grad(objective)(params)
        given = {"value": value, "grad": gradients, "value_fn": objective}
        return tx.update(gradients, state, params, **given)

    return jax.make_jaxpr(step)(START, tx.init(START))


@pytest.mark.parametrize("make", SEARCHES.values(), ids=SEARCHES)
def test_a_line_search_behind_the_gradient_is_refused(make: Any) -> None:
    """It compares values without the penalty, along a direction with it: off by 0.6 for a ridge."""
    message = (
        r"stands before (scale_by_(zoom|backtracking)_linesearch|scale_by_polyak), which goes by "
        r"the value of the loss that it is given, and that is the data's alone; leave it out, and "
        r"add plan\.penalty\(params\) to the loss, in value_fn too"
    )
    with pytest.raises(OptimizerError, match=message):
        searched(optax.chain(PLAN.gradient(), make()), data_loss)


def polyak_of_ones_own() -> Any:
    def update(updates: Any, state: Any, params: Any = None, *, value: Any, **_: Any) -> Any:
        return jax.tree.map(lambda u: value * u, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def test_a_line_search_with_the_penalty_in_the_loss() -> None:
    searched(optax.lbfgs(), loss)
    elsewhere = optax.masked(polyak_of_ones_own(), {"hidden": True, "out": False})
    plan = regularize(START, {"out": L2(0.2)})
    searched(optax.chain(plan.gradient(), elsewhere), data_loss)
    with pytest.raises(OptimizerError, match=r"stands before .*polyak_of_ones_own, which goes by"):
        searched(optax.chain(PLAN.gradient(), polyak_of_ones_own()), data_loss)
    plateau = contrib.reduce_on_plateau()  # watches any value that it is given
    searched(optax.chain(PLAN.gradient(), optax.sgd(0.1), plateau), data_loss)


# --- an L2 beside what shrinks --------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.1, lambda count: 0.1 / (count + 1)])
def test_the_shrinking_of_fromage_cannot_be_set_to_zero(rate: Any) -> None:
    tx = optax.chain(PLAN.gradient(), optax.fromage(rate))
    with pytest.raises(AppliedTwiceError, match="as a part of its algorithm, as fromage") as caught:
        traced(jax.grad(data_loss), tx)
    assert "Leave the L2 out of the rules, or take another optimizer" in str(caught.value)
    assert "weight_decay" not in str(caught.value)
    traced(
        jax.grad(data_loss), optax.chain(regularize(START, L1(0.1)).gradient(), optax.fromage(rate))
    )


def test_a_weight_decay_is_not_said_to_be_that_of_adamw() -> None:
    tx = optax.chain(PLAN.gradient(), optax.lion(0.1))
    with pytest.raises(AppliedTwiceError, match="several optimizers have one by default") as caught:
        traced(jax.grad(data_loss), tx)
    assert "adamw" not in str(caught.value)
