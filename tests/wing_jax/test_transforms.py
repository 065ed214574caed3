"""The three transforms against loss terms and steps written by hand, and what they refuse."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from frameworks import Jitted

from penalize import (
    L1,
    L2,
    AppliedTwiceError,
    GroupLasso,
    ModelError,
    NoProximalOperatorError,
    OptimizerError,
    Orthogonal,
    StrengthError,
    named,
)
from penalize.errors import ModeError
from penalize.jax import Plan, regularize

Params = dict[str, Any]
LR, STEPS = 0.05, 10

_rng = np.random.default_rng(0)
X = jnp.asarray(_rng.normal(size=(12, 4)))
Y = jnp.asarray(_rng.normal(size=(12, 2)))
START: Params = {
    "hidden": {"kernel": jnp.asarray(_rng.normal(size=(4, 3))), "bias": jnp.zeros(3)},
    "out": {"kernel": jnp.asarray(_rng.normal(size=(3, 2))), "bias": jnp.zeros(2)},
}
RULES = {"hidden": L1(0.02) + L2(0.03), "out": GroupLasso(0.05, groups="outputs")}
PLAN = regularize(START, RULES)

OPTIMIZERS: dict[str, Callable[[Any], optax.GradientTransformation]] = {
    "sgd": optax.sgd,
    "momentum": lambda lr: optax.sgd(lr, momentum=0.9),
    "adam": optax.adam,
}
each_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


def data_loss(params: Params, x: Any = X, y: Any = Y) -> Any:
    h = jnp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return jnp.mean((h @ params["out"]["kernel"] + params["out"]["bias"] - y) ** 2)


SLOPES = jax.grad(data_loss)(START)


def train(
    tx: Any,
    loss: Callable[[Params], Any] = data_loss,
    steps: int = STEPS,
) -> Params:
    params, state = START, tx.init(START)

    @jax.jit
    def step(params: Params, state: Any) -> Any:
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        params, state = step(params, state)
    return params


def update_once(tx: Any) -> Any:
    return jax.jit(tx.update)(SLOPES, tx.init(START), START)[0]


def check_equal(found: Params, expected: Params, tolerance: float = 1e-12) -> None:
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


# --- against references ---------------------------------------------------------------------


def by_hand(params: Params) -> Any:
    """The penalty with nothing of ours."""
    hidden, out = params["hidden"]["kernel"], params["out"]["kernel"]
    lengths = jnp.sqrt((out**2).sum(0))
    return 0.02 * jnp.abs(hidden).sum() + 0.03 * (hidden**2).sum() + 0.05 * 3**0.5 * lengths.sum()


@each_optimizer
def test_gradient_is_the_loss_term(make: Any) -> None:
    expected = train(make(LR), lambda p: data_loss(p) + by_hand(p))
    check_equal(train(optax.chain(PLAN.gradient(), make(LR))), expected)
    check_equal(train(make(LR), lambda p: data_loss(p) + PLAN.penalty(p)), expected)


@each_optimizer
def test_decoupled_adds_to_the_update(make: Any) -> None:
    tx = make(LR)
    params, state = START, tx.init(START)

    @jax.jit
    def step(params: Params, state: Any) -> Any:
        updates, state = tx.update(jax.grad(data_loss)(params), state, params)
        slopes = jax.grad(by_hand)(params)
        return jax.tree.map(lambda w, u, g: w + u - LR * g, params, updates, slopes), state

    for _ in range(STEPS):
        params, state = step(params, state)
    check_equal(train(optax.chain(make(LR), PLAN.decoupled(LR))), params)


def test_decoupled_l2_is_adamw() -> None:
    decay = 0.1
    plan = regularize(START, L2.from_weight_decay(decay))
    kernels = jax.tree.map(lambda w: w.ndim > 1, START)
    expected = train(optax.adamw(LR, weight_decay=decay, mask=kernels))
    check_equal(train(optax.chain(optax.adam(LR), plan.decoupled(LR))), expected)


def soft(w: Any, threshold: Any) -> Any:
    return jnp.sign(w) * jnp.maximum(jnp.abs(w) - threshold, 0)


def shrink(w: Any, threshold: Any) -> Any:
    lengths = jnp.sqrt((w**2).sum(0, keepdims=True))
    return w * jnp.maximum(1 - threshold / lengths, 0)


@pytest.mark.parametrize(("name", "factor"), [("sgd", 1.0), ("momentum", 10.0)])
def test_proximal_sgd_by_hand(name: str, factor: float) -> None:
    tx = OPTIMIZERS[name](LR)
    step = LR * factor
    params, state = START, tx.init(START)
    for _ in range(STEPS):
        updates, state = tx.update(jax.grad(data_loss)(params), state, params)
        params = optax.apply_updates(params, updates)
        hidden = soft(params["hidden"]["kernel"], step * 0.02) / (1 + 2 * step * 0.03)
        params["hidden"]["kernel"] = hidden
        params["out"]["kernel"] = shrink(params["out"]["kernel"], step * 0.05 * 3**0.5)
    check_equal(train(optax.chain(OPTIMIZERS[name](LR), PLAN.proximal(LR))), params)


def test_proximal_adam_by_hand() -> None:
    plan = regularize(START, L1(0.02))
    params = START
    mu = nu = jax.tree.map(jnp.zeros_like, params)
    for t in range(1, STEPS + 1):
        g = jax.grad(data_loss)(params)
        mu = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mu, g)
        nu = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, nu, g)
        scale = jax.tree.map(lambda v, t=t: jnp.sqrt(v / (1 - 0.999**t)) + 1e-8, nu)
        params = jax.tree.map(lambda w, m, d, t=t: w - LR * m / (1 - 0.9**t) / d, params, mu, scale)
        for layer in params:
            # Ten times the floor that bounds the step where there was no gradient yet.
            assert (scale[layer]["kernel"] > 0.02 / 10).all()
            step = LR * 0.02 / scale[layer]["kernel"]
            params[layer]["kernel"] = soft(params[layer]["kernel"], step)
    check_equal(train(optax.chain(optax.adam(LR), plan.proximal(LR))), params)


# --- schedules ------------------------------------------------------------------------------


def falling(count: Any) -> Any:
    return LR * 0.9**count


def rising(count: Any) -> Any:
    return 0.5 * count


MODES: dict[str, Callable[[Plan, Any, Any], Any]] = {
    "gradient": lambda plan, lr, s: optax.chain(plan.gradient(s), optax.sgd(lr)),
    "decoupled": lambda plan, lr, s: optax.chain(optax.sgd(lr), plan.decoupled(lr, s)),
    "proximal": lambda plan, lr, s: optax.chain(optax.sgd(lr), plan.proximal(lr, s)),
}
each_mode = pytest.mark.parametrize("mode", MODES)


@each_mode
def test_schedules_of_rate_and_strength(mode: str) -> None:
    """And those that are arguments of the step, as for searches over them."""

    @Jitted
    def once(params: Params, rate: Any, strength: Any) -> Params:
        tx = MODES[mode](PLAN, rate, strength)
        updates, _ = tx.update(jax.grad(data_loss)(params), tx.init(params), params)
        return optax.apply_updates(params, updates)

    expected = START
    for count in range(STEPS):
        expected = once(expected, falling(count), rising(count))
    assert once.traces == 1
    check_equal(train(MODES[mode](PLAN, falling, rising)), expected)


@each_mode
def test_a_strength_schedule_compiles_once(mode: str) -> None:
    traces = 0

    def counted(params: Params) -> Any:
        nonlocal traces
        traces += 1
        return data_loss(params)

    train(MODES[mode](PLAN, falling, rising), counted)
    assert traces == 1


def injected(mode: str) -> Any:
    sgd = optax.inject_hyperparams(optax.sgd)(learning_rate=falling)
    given = {} if mode == "gradient" else {"learning_rate": falling}
    ours = optax.inject_hyperparams(getattr(PLAN, mode))(strength=rising, **given)
    return optax.chain(*((ours, sgd) if mode == "gradient" else (sgd, ours)))


@each_mode
def test_injected_hyperparameters(mode: str) -> None:
    check_equal(train(injected(mode)), train(MODES[mode](PLAN, falling, rising)))


def test_the_proximal_step_follows_an_injected_rate_that_is_changed() -> None:
    tx = optax.chain(optax.inject_hyperparams(optax.sgd)(learning_rate=LR), PLAN.proximal(LR))
    state = tx.init(START)
    state[0].hyperparams["learning_rate"] = jnp.asarray(4 * LR)
    updates, _ = tx.update(jax.grad(data_loss)(START), state, START)
    check_equal(updates, update_once(MODES["proximal"](PLAN, 4 * LR, 1.0)))


# --- within what optax has to wrap ----------------------------------------------------------


def accumulated(inner: Any, batches: int) -> optax.MultiSteps:
    """In float64, which optax has to be told since 0.2.8."""
    tell = "accumulator_dtype" in inspect.signature(optax.MultiSteps).parameters
    told = {"accumulator_dtype": jnp.float64} if tell else {}
    return optax.MultiSteps(inner, batches, **told)


@each_mode
def test_accumulated_gradients(mode: str) -> None:
    """One penalty per step, however many batches it has."""
    micro = [(X[i::3], Y[i::3]) for i in range(3)]
    inner = MODES[mode](PLAN, LR, 1.0)
    tx = accumulated(inner, 3)
    params, state = START, tx.init(START)

    @jax.jit
    def step(params: Params, state: Any, x: Any, y: Any) -> Any:
        updates, state = tx.update(jax.grad(data_loss)(params, x, y), state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(STEPS):
        for x, y in micro:
            params, state = step(params, state, x, y)
    check_equal(params, train(inner))


def is_hidden(params: Params) -> Any:
    return {name: jax.tree.map(lambda _, n=name: n == "hidden", w) for name, w in params.items()}


def is_out(params: Params) -> Any:
    return jax.tree.map(lambda hidden: not hidden, is_hidden(params))


@each_mode
def test_masks(mode: str) -> None:
    """What a mask leaves out is neither stepped nor penalized, and not in the way elsewhere."""
    inner = MODES[mode](PLAN, LR, 1.0)
    frozen = optax.masked(optax.set_to_zero(), is_out)
    inside = train(optax.chain(frozen, optax.masked(inner, is_hidden)))
    alone = regularize(START, {"hidden": RULES["hidden"]})
    beside = train(optax.chain(frozen, MODES[mode](alone, LR, 1.0)))
    check_equal(inside["out"], START["out"])
    check_equal(inside, beside)
    check_equal(
        inside["hidden"], train(inner, lambda p: data_loss({**p, "out": START["out"]}))["hidden"]
    )


@each_mode
def test_one_plan_in_several_partitions(mode: str) -> None:
    """Each part has its own chain; every penalty has one door."""
    tx = optax.partition(
        {"a": MODES[mode](PLAN, LR, 1.0), "b": MODES[mode](PLAN, 2 * LR, 1.0)},
        {"hidden": "a", "out": "b"},
    )
    for layer, rate in (("hidden", LR), ("out", 2 * LR)):
        check_equal(update_once(tx)[layer], update_once(MODES[mode](PLAN, rate, 1.0))[layer])


@each_mode
def test_a_step_that_is_not_finite_changes_nothing(mode: str) -> None:
    tx = optax.apply_if_finite(MODES[mode](PLAN, LR, rising), 3)

    @jax.jit
    def step(params: Params, state: Any, factor: Any) -> Any:
        gradients = jax.tree.map(lambda g: factor * g, jax.grad(data_loss)(params))
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    params, state = START, tx.init(START)
    for factor in (1.0, jnp.nan, 1.0, jnp.inf, 1.0):
        params, state = step(params, state, factor)
    check_equal(params, train(MODES[mode](PLAN, LR, rising), steps=3))


@each_mode
def test_named_chains_and_chains_in_chains(mode: str) -> None:
    flat = MODES[mode](PLAN, LR, 1.0)
    ours, first = {
        "gradient": (PLAN.gradient(), True),
        "decoupled": (PLAN.decoupled(LR), False),
        "proximal": (PLAN.proximal(LR), False),
    }[mode]
    pairs = [("ours", ours), ("sgd", optax.chain(optax.identity(), optax.sgd(LR)))]
    named_chain = optax.named_chain(*(pairs if first else pairs[::-1]))
    check_equal(update_once(named_chain), update_once(flat))
    nested = [optax.chain(ours), optax.sgd(LR)]
    check_equal(update_once(optax.chain(*(nested if first else nested[::-1]))), update_once(flat))


@each_mode
def test_scans(mode: str) -> None:
    tx = MODES[mode](PLAN, LR, rising)

    def step(carry: Any, _: Any) -> Any:
        params, state = carry
        updates, state = tx.update(jax.grad(data_loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (START, tx.init(START)), length=STEPS)
    check_equal(params, train(tx))


def test_two_plans_with_different_penalties() -> None:
    first = regularize(START, {"hidden": L1(0.02)})
    second = regularize(START, {"out": L2(0.1)})
    both = regularize(START, {"hidden": L1(0.02), "out": L2(0.1)})
    tx = optax.chain(second.gradient(), optax.sgd(LR), first.proximal(LR))
    expected = optax.chain(both.gradient(), optax.sgd(LR))
    check_equal(update_once(tx)["out"], update_once(expected)["out"])
    alone = optax.chain(optax.sgd(LR), first.proximal(LR))
    check_equal(update_once(tx)["hidden"], update_once(alone)["hidden"])


@pytest.mark.parametrize(("weights", "updates"), [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_zeros_are_exact_where_dtypes_differ(weights: str, updates: str) -> None:
    """An update of −w that is rounded to half precision leaves a rest."""
    params = {"kernel": jnp.full((2, 2), 0.1, weights)}
    assert 0.1 - jnp.float32(jnp.bfloat16(0.1)) != 0  # naive
    tx = optax.chain(optax.sgd(1.0), regularize(params, L1(1.0)).proximal(1.0))
    gradients = {"kernel": jnp.full((2, 2), 1e-3, updates)}
    new = optax.apply_updates(params, tx.update(gradients, tx.init(params), params)[0])
    assert new["kernel"].dtype == weights
    assert (new["kernel"] == 0).all()


# --- refused --------------------------------------------------------------------------------


@each_mode
def test_no_params(mode: str) -> None:
    tx = MODES[mode](PLAN, LR, 1.0)
    with pytest.raises(OptimizerError, match="without parameters; pass them"):
        tx.update(START, tx.init(START))


@each_mode
def test_another_tree(mode: str) -> None:
    tx = MODES[mode](PLAN, LR, 1.0)
    other = {"hidden": START["hidden"], "head": START["out"]}
    with pytest.raises(ModelError, match=r"has 'head\.bias', 'head\.kernel' and lacks 'out\.kerne"):
        tx.init(other)
    state = tx.init(START)
    with pytest.raises(ModelError, match="unlike the one that was planned"):
        tx.update(other, state, other)
    wider = jax.tree.map(lambda w: jnp.concatenate([w, w]), START)
    with pytest.raises(ModelError, match=r"'.*kernel' has the shape .* here, and .* planned"):
        tx.update(wider, state, wider)


@pytest.mark.parametrize(
    ("chain", "kind"),
    [
        (lambda p: (optax.adam(LR), p.gradient()), "scale_by_adam"),
        (lambda p: (optax.sgd(LR), p.gradient()), "scale"),
        (lambda p: (optax.sgd(LR, momentum=0.9), p.gradient()), "trace"),
        (lambda p: (optax.normalize_by_update_norm(), p.gradient()), "normalize_by_update_norm"),
        (lambda p: (optax.masked(optax.adam(LR), is_hidden), p.gradient()), "masked"),
        (
            lambda p: (
                optax.partition({True: optax.adam(LR), False: optax.sgd(LR)}, is_hidden),
                p.gradient(),
            ),
            "partition",
        ),
        (lambda p: (doubled(), p.gradient()), r".*test_transforms\.doubled"),
        (lambda p: (p.decoupled(LR), optax.sgd(LR)), "scale"),
        (lambda p: (optax.sgd(LR), p.decoupled(LR), optax.clip(1.0)), "clip"),
        (lambda p: (optax.sgd(LR), p.proximal(LR), optax.clip(1.0)), "clip"),
        (lambda p: (p.proximal(LR), optax.sgd(LR)), "scale"),
    ],
)
def test_order(chain: Any, kind: str) -> None:
    with pytest.raises(OptimizerError, match=rf"stands (after|before) {kind},.*; put it"):
        update_once(optax.chain(*chain(PLAN)))


def doubled() -> optax.GradientTransformation:
    """Somebody's own transform, whose effect is not known."""

    def update_fn(updates: Any, state: Any, params: Any = None) -> Any:
        return jax.tree.map(lambda u: 2 * u, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update_fn)


@pytest.mark.parametrize(
    "before",
    [
        optax.clip_by_global_norm(1.0),
        optax.zero_nans(),
        optax.masked(optax.clip(1.0), is_hidden),
        optax.identity(),
    ],
)
def test_gradient_may_follow_what_does_not_scale(before: Any) -> None:
    """Clipping is the user's choice: behind it the penalty is not clipped."""
    tx = optax.chain(before, PLAN.gradient(), optax.sgd(LR))
    plain = update_once(optax.chain(before, optax.sgd(LR)))
    expected = jax.tree.map(lambda u, g: u - LR * g, plain, jax.grad(by_hand)(START))
    check_equal(update_once(tx), expected)


@pytest.mark.parametrize(
    "outside",
    [
        lambda p: (p.gradient(), optax.MultiSteps(optax.sgd(LR), 2, use_grad_mean=False)),
        lambda p: (p.gradient(), optax.apply_every(2)),
        lambda p: (optax.MultiSteps(optax.sgd(LR), 2), p.decoupled(LR)),
        lambda p: (optax.sgd(LR), optax.apply_every(2), p.decoupled(LR)),
        lambda p: (optax.apply_if_finite(optax.sgd(LR), 2), p.decoupled(LR)),
    ],
)
def test_outside_of_accumulation(outside: Any) -> None:
    """There it would act once per batch, and not once per step."""
    transforms = [
        tx.gradient_transformation() if isinstance(tx, optax.MultiSteps) else tx
        for tx in outside(PLAN)
    ]
    with pytest.raises(OptimizerError, match=r"once per batch; put it|in steps that it skips; put"):
        update_once(optax.chain(*transforms))


@pytest.mark.parametrize(
    "frozen",
    [
        lambda: optax.chain(optax.masked(optax.set_to_zero(), is_out), optax.sgd(LR)),
        lambda: optax.chain(optax.freeze({"hidden": False, "out": True}), optax.sgd(LR)),
        lambda: optax.partition({True: optax.sgd(LR), False: optax.set_to_zero()}, is_hidden),
        lambda: optax.set_to_zero(),
    ],
)
def test_frozen_by_an_optimizer(frozen: Any) -> None:
    """Its updates are zero; the decay would go on."""
    with pytest.raises(OptimizerError, match=r"after set_to_zero, and would move what that fre"):
        update_once(optax.chain(frozen(), PLAN.decoupled(LR)))


def test_frozen_and_exempt() -> None:
    plan = regularize(START, {"hidden": L2(0.1)})
    parts = optax.partition({True: optax.sgd(LR), False: optax.set_to_zero()}, is_hidden)
    for mode in ("decoupled", "proximal"):
        found = update_once(optax.chain(parts, getattr(plan, mode)(LR)))
        expected = update_once(MODES[mode](plan, LR, 1.0))
        check_equal(found["hidden"], expected["hidden"])
        assert not any(np.any(w) for w in jax.tree.leaves(found["out"]))


def test_before_a_mean_of_gradients() -> None:
    mean = accumulated(optax.sgd(LR), 1)
    tx = optax.chain(PLAN.gradient(), mean.gradient_transformation())
    check_equal(update_once(tx), update_once(MODES["gradient"](PLAN, LR, 1.0)))


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        (
            lambda p: (p.gradient(), p.gradient(), optax.sgd(LR)),
            r"by plan\.gradient\(\), and by plan\.gradient\(\)",
        ),
        (
            lambda p: (p.gradient(), optax.sgd(LR), p.proximal(LR)),
            r"by plan\.proximal\(\.\.\.\), and by plan\.gradient\(\)",
        ),
        (
            lambda p: (optax.masked(p.gradient(), is_hidden), optax.sgd(LR), p.decoupled(LR)),
            r"on 'hidden\.kernel' would",
        ),
        (
            lambda p: (optax.sgd(LR), p.proximal(LR), regularize(START, L1(7.0)).proximal(LR)),
            "would be applied twice",
        ),
    ],
)
def test_twice_in_one_chain(chain: Any, message: str) -> None:
    plan = regularize(START, L1(0.1))
    with pytest.raises(AppliedTwiceError, match=message):
        update_once(optax.chain(*chain(plan)))


def test_masks_that_share_nothing_are_two_doors_for_two_penalties() -> None:
    rest = {"hidden": False, "out": True}
    parts = [optax.masked(PLAN.gradient(), mask) for mask in ({**rest, "hidden": True}, rest)]
    with pytest.raises(AppliedTwiceError, match=r"on 'out\.kernel' would"):
        update_once(optax.chain(*parts, optax.sgd(LR)))
    parts[0] = optax.masked(PLAN.gradient(), {"hidden": True, "out": False})
    whole = MODES["gradient"](PLAN, LR, 1.0)
    check_equal(update_once(optax.chain(*parts, optax.sgd(LR))), update_once(whole))


@pytest.mark.parametrize(
    "tx",
    [
        lambda p: optax.chain(p.gradient(), optax.adamw(LR)),
        lambda p: optax.chain(optax.adamw(LR), p.decoupled(LR)),
        lambda p: optax.chain(optax.adamw(LR), p.proximal(LR)),
        lambda p: optax.chain(p.gradient(), optax.lion(LR)),
        lambda p: optax.chain(p.gradient(), optax.novograd(LR, weight_decay=0.1)),
        lambda p: optax.chain(p.gradient(), optax.adamw(LR, mask={"hidden": False, "out": True})),
        lambda p: optax.chain(p.gradient(), optax.adamw(LR, weight_decay=lambda count: 0.1)),
        lambda p: optax.chain(
            p.gradient(),
            optax.partition({True: optax.adam(LR), False: optax.adamw(LR)}, is_hidden),
        ),
        lambda p: optax.chain(p.gradient(), optax.inject_hyperparams(optax.adamw)(LR)),
    ],
)
def test_weight_decay_beside_an_l2(tx: Any) -> None:
    plan = regularize(START, {"out.kernel": L2(0.1), "hidden.kernel": L1(0.1)})
    with pytest.raises(AppliedTwiceError, match=r"(?s)'out\.kernel' would.*Set weight_decay=0\.0"):
        update_once(tx(plan))


@pytest.mark.parametrize(
    "tx",
    [
        lambda p: optax.chain(p.gradient(), optax.adamw(LR, weight_decay=0.0)),
        lambda p: optax.chain(p.gradient(), optax.adamw(LR, mask={"hidden": True, "out": False})),
        lambda p: optax.chain(
            p.gradient(),
            optax.partition({True: optax.adamw(LR), False: optax.adam(LR)}, is_hidden),
        ),
    ],
)
def test_weight_decay_elsewhere(tx: Any) -> None:
    plan = regularize(START, {"out.kernel": L2(0.1)})
    expected = update_once(optax.chain(plan.gradient(), optax.adam(LR)))
    check_equal(update_once(tx(plan))["out"], expected["out"])


def test_proximal_l1_beside_weight_decay_is_an_elastic_net_and_no_mistake() -> None:
    plan = regularize(START, L1(0.1))
    update_once(optax.chain(optax.adamw(LR), plan.proximal(LR)))


@each_mode
def test_a_loss_term_beside_a_transform(mode: str) -> None:
    tx = MODES[mode](PLAN, LR, 1.0)
    with pytest.raises(AppliedTwiceError, match=r"by plan\.penalty\(params\) in the loss of this"):
        train(tx, lambda p: data_loss(p) + PLAN.penalty(p))
    again = regularize(START, RULES)
    with pytest.raises(AppliedTwiceError, match=r"plan\.penalty\(params\)"):
        train(tx, lambda p: data_loss(p) + again.penalty(p))


@each_mode
def test_a_penalty_that_is_only_reported(mode: str) -> None:
    tx = MODES[mode](PLAN, LR, 1.0)

    @jax.jit
    def step(params: Params, state: Any) -> Any:
        loss, gradients = jax.value_and_grad(data_loss)(params)
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), loss, PLAN.penalty(params)

    _, loss, penalty = step(START, tx.init(START))
    np.testing.assert_allclose(loss, data_loss(START), rtol=1e-12)
    np.testing.assert_allclose(penalty, by_hand(START), rtol=1e-12)


# --- proximal steps that are not known ------------------------------------------------------


def test_proximal_outside_of_a_chain() -> None:
    tx = PLAN.proximal(LR)
    with pytest.raises(OptimizerError, match=r"outside of an optax\.chain.*write optax\.chain"):
        update_once(tx)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: optax.lion(LR), "scale_by_lion"),
        (lambda: optax.adadelta(LR), "scale_by_adadelta"),
        (lambda: optax.adabelief(LR), "scale_by_belief"),
        (lambda: optax.lamb(LR), "scale_by_trust_ratio"),
        (lambda: optax.rmsprop(LR, centered=True), "scale_by_stddev"),
        (lambda: optax.sign_sgd(LR), "scale_by_sign"),
        (lambda: optax.masked(optax.sgd(LR), is_hidden), "masked"),
        (lambda: optax.apply_if_finite(optax.sgd(LR), 2), "apply_if_finite"),
        (lambda: optax.chain(optax.scale_by_adam(), optax.adagrad(LR)), "two adaptive"),
        (lambda: optax.amsgrad(LR, bias_correction_nu=False), "scale_by_amsgrad without bias"),
        (lambda: optax.sgd(LR, momentum=1.0), r"momentum 1\.0, which adds up"),
        (lambda: optax.rmsprop(falling, momentum=0.9), "momentum behind a learning rate"),
        (lambda: optax.chain(doubled(), optax.sgd(LR)), r".*test_transforms\.doubled"),
    ],
)
def test_proximal_behind_what_is_not_known(make: Any, kind: str) -> None:
    plan = regularize(START, L1(0.1))
    with pytest.raises(ModeError, match=rf"that of {kind}.* is not known; use sgd"):
        update_once(optax.chain(make(), plan.proximal(LR)))


def test_wrappers_that_keep_parameters_of_their_own() -> None:
    """What the proximal step sets would be averaged away."""
    from optax import contrib

    for ours in (PLAN.decoupled(LR), PLAN.proximal(LR)):
        tx = contrib.schedule_free(optax.chain(optax.sgd(LR), ours), LR)
        with pytest.raises(OptimizerError, match=r"acts within schedule_free, which may keep"):
            update_once(tx)
    tx = contrib.schedule_free(optax.chain(PLAN.gradient(), optax.sgd(LR)), LR)
    expected = contrib.schedule_free(optax.sgd(LR), LR)
    check_equal(train(tx), train(expected, lambda p: data_loss(p) + by_hand(p)))


@pytest.mark.parametrize(
    ("before", "given"),
    [
        (lambda: optax.sgd(LR), 2 * LR),
        (lambda: optax.sgd(LR), falling),
        (lambda: optax.sgd(falling), LR),
        (lambda: optax.sgd(falling), optax.cosine_decay_schedule(LR, 100)),
        (lambda: optax.chain(optax.scale(0.5), optax.sgd(LR)), LR),
        (lambda: optax.scale(LR), LR),  # uphill
        (lambda: optax.scale_by_adam(), LR),  # without its learning rate
    ],
)
def test_another_learning_rate(before: Any, given: Any) -> None:
    plan = regularize(START, L1(0.1))
    message = r"given the learning rate [\d.e-]+ \(at step \d+\), and stands in a chain that has"
    with pytest.raises(OptimizerError, match=message):
        update_once(optax.chain(before(), plan.proximal(given)))


def test_a_schedule_of_traced_values_has_no_value_yet() -> None:
    def updates(rate: Any) -> Any:
        tx = optax.chain(optax.sgd(lambda count: rate), PLAN.proximal(lambda count: rate))
        return tx.update(SLOPES, tx.init(START), START)[0]

    check_equal(jax.jit(updates)(LR), update_once(MODES["proximal"](PLAN, LR, 1.0)))


def test_a_rate_in_several_factors() -> None:
    plan = regularize(START, L1(0.1))
    parts = optax.scale_by_schedule(falling), optax.scale(-1.0), plan.proximal(falling)
    whole = optax.sgd(falling), plan.proximal(falling)
    check_equal(train(optax.chain(*parts)), train(optax.chain(*whole)))


def test_no_prox() -> None:
    plan = regularize(START, {"hidden.kernel": Orthogonal(0.1)})
    with pytest.raises(NoProximalOperatorError, match=r"on 'hidden\.kernel'"):
        update_once(optax.chain(optax.sgd(LR), plan.proximal(LR)))
    update_once(optax.chain(plan.gradient(), optax.sgd(LR)))


@pytest.mark.parametrize("value", [-0.1, float("nan"), "0.1", None])
def test_numbers_are_checked_at_once(value: Any) -> None:
    plan = regularize(START, {named("out.kernel"): L1(0.1)})
    with pytest.raises(StrengthError, match=r"plan\.gradient got strength="):
        plan.gradient(value)
    for make in (plan.decoupled, plan.proximal):
        with pytest.raises(StrengthError, match=r"plan\.\w+ got learning_rate="):
            make(value)
        with pytest.raises(StrengthError, match=r"plan\.\w+ got strength="):
            make(0.1, value)


@pytest.mark.parametrize("how", ["aux", "stop_gradient"])
def test_a_penalty_that_is_only_looked_at_is_no_second_door(how: str) -> None:
    optimizer = optax.chain(optax.sgd(LR), PLAN.proximal(LR))

    def loss(params: Params) -> tuple[Any, Any]:
        penalty = PLAN.penalty(params)
        seen = 0 * jax.lax.stop_gradient(penalty) if how == "stop_gradient" else 0.0
        return data_loss(params) + seen, penalty

    @jax.jit
    def step(params: Params, state: Any) -> Any:
        (_, penalty), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        return optimizer.update(gradients, state, params), penalty

    _, penalty = step(START, optimizer.init(START))
    np.testing.assert_allclose(penalty, PLAN.penalty(START))


@pytest.mark.parametrize(
    "limit", [optax.clip(1e-3), optax.clip_by_global_norm(0.1), optax.clip_by_block_rms(0.1)]
)
def test_proximal_behind_a_limit_of_the_step_is_refused(limit: Any) -> None:
    """Whatever it lets through is not the step that the learning rate tells."""
    optimizer = optax.chain(optax.sgd(LR), limit, PLAN.proximal(LR))
    with pytest.raises(ModeError, match="behind what scales the gradient is not known"):
        optimizer.update(START, optimizer.init(START), START)
    optimizer = optax.chain(limit, optax.sgd(LR), PLAN.proximal(LR))
    optimizer.update(START, optimizer.init(START), START)
