"""The proximal steps: each optimizer as its paper has it, in NumPy, under a constant gradient.

There an update is the step times the gradient, at every count, but for sums of momentum, which get
there in the limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from penalize import steps
from penalize.backends import numpy as xp
from penalize.steps import SLACK, Step, Taken, bounded

G = np.array([0.5, -2.0, 0.01, 30.0])
LR, B1, B2, EPS = 0.03, 0.8, 0.99, 1e-3
"""eps is large, so that a place where it does not belong is seen."""


class Update(NamedTuple):
    """One update: what it takes from the weight, and the step that the formula says."""

    moved: np.ndarray
    step: Taken


Updates = Iterator[Update]


def sgd(momentum: float, dampening: float, *, nesterov: bool = False) -> Updates:
    kept = None
    while True:
        kept = G if kept is None else momentum * kept + (1 - dampening) * G
        moved = G + momentum * kept if nesterov else kept
        yield Update(LR * moved, steps.sgd(LR, momentum, dampening))


def _moments() -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    m, v = 0 * G, 0 * G
    for t in range(1, 10_000):
        m, v = B1 * m + (1 - B1) * G, B2 * v + (1 - B2) * G * G
        yield t, m, v


def adam(*, hat: bool) -> Updates:
    """Kingma and Ba (2015), algorithm 1; with hat the order at the end of their section 2."""
    for t, m, v in _moments():
        c1, c2 = 1 - B1**t, 1 - B2**t
        if hat:
            moved = LR * math.sqrt(c2) / c1 * m / (np.sqrt(v) + EPS)
        else:
            moved = LR * (m / c1) / (np.sqrt(v / c2) + EPS)
        yield Update(moved, steps.adam(LR, v, correction=c2, eps=EPS, eps_is_scaled=hat))


def adam_inside() -> Updates:
    for t, m, v in _moments():
        moved = LR * (m / (1 - B1**t)) / (np.sqrt(v / (1 - B2**t) + EPS) + EPS)
        yield Update(moved, steps.adam(LR, v, correction=1 - B2**t, eps=EPS, inside=EPS))


def amsgrad() -> Updates:
    """With the largest of the corrected averages, which needs no further correction."""
    largest = 0 * G
    for t, m, v in _moments():
        largest = np.maximum(largest, v / (1 - B2**t))
        moved = LR * (m / (1 - B1**t)) / (np.sqrt(largest) + EPS)
        yield Update(moved, steps.adam(LR, largest, eps=EPS))


def nadam(decay: float) -> Updates:
    """Dozat (2016), algorithm 8."""
    product = 1.0
    for t, m, v in _moments():
        now = B1 * (1 - 0.5 * 0.96 ** (t * decay))
        after = B1 * (1 - 0.5 * 0.96 ** ((t + 1) * decay))
        product *= now
        mean = after * m / (1 - product * after) + (1 - now) * G / (1 - product)
        moved = LR * mean / (np.sqrt(v / (1 - B2**t)) + EPS)
        momenta = steps.nadam_momentum(B1, t, decay)
        assert momenta == (now, after)
        yield Update(
            moved,
            steps.nadam(LR, v, betas=(B1, B2), count=t, momenta=momenta, product=product, eps=EPS),
        )


def nesterov_adam() -> Updates:
    """With a momentum that stays the same."""
    for t, m, v in _moments():
        mean = B1 * m / (1 - B1 ** (t + 1)) + (1 - B1) * G / (1 - B1**t)
        moved = LR * mean / (np.sqrt(v / (1 - B2**t)) + EPS)
        step = steps.nadam(LR, v, betas=(B1, B2), count=t, momenta=(B1, B1), product=B1**t, eps=EPS)
        yield Update(moved, step)


def radam() -> Updates:
    """Liu et al. (2020), algorithm 2."""
    longest = 2 / (1 - B2) - 1
    for t, m, v in _moments():
        length = longest - 2 * t * B2**t / (1 - B2**t)
        mean = m / (1 - B1**t)
        if length > 5:
            rectified = (length - 4) * (length - 2) * longest
            rectified /= (longest - 4) * (longest - 2) * length
            mean = mean * math.sqrt(rectified) * math.sqrt(1 - B2**t) / (np.sqrt(v) + EPS)
        yield Update(LR * mean, steps.radam(LR, v, decay=B2, count=t, eps=EPS, xp=xp))


def radam_by_arrays() -> Updates:
    """With a count that is an array, as an optimizer has it that keeps it on a device."""
    for t, update in enumerate(radam(), 1):
        count = np.asarray(float(t))
        step = steps.radam(LR, _second_of(t), decay=B2, count=count, eps=EPS, xp=xp)
        yield Update(update.moved, step)


def _second_of(t: int) -> np.ndarray:
    return (1 - B2**t) * G * G


def adamax() -> Updates:
    """Kingma and Ba (2015), algorithm 2, with an eps added to the norm."""
    norm = 0 * G
    for t, m, _ in _moments():
        norm = np.maximum(B2 * norm, np.abs(G))
        yield Update(LR / (1 - B1**t) * m / (norm + EPS), steps.adamax(LR, norm, eps=EPS))


def adagrad(decay: float) -> Updates:
    """Duchi, Hazan and Singer (2011), with a rate that falls."""
    total = np.full(4, 0.1)
    for t in range(1, 10_000):
        total = total + G * G
        moved = LR / (1 + (t - 1) * decay) * G / (np.sqrt(total) + EPS)
        yield Update(moved, steps.adagrad(LR, total, count=t, rate_decay=decay, eps=EPS))


def adagrad_inside() -> Updates:
    total = np.full(4, 0.1)
    for _ in range(1, 10_000):
        total = total + G * G
        yield Update(LR * G / np.sqrt(total + EPS), steps.adagrad(LR, total, inside=EPS))


def rmsprop(momentum: float, *, inside: bool = False, start: float = 0.0) -> Updates:
    """Tieleman and Hinton (2012); their average begins with zero, TensorFlow 1's with one."""
    kept, v = 0 * G, np.full(4, start)
    for t in range(1, 10_000):
        v = B2 * v + (1 - B2) * G * G
        root = np.sqrt(v + EPS) if inside else np.sqrt(v) + EPS
        kept = momentum * kept + LR * G / root
        where: dict[str, Any] = {"inside" if inside else "eps": EPS}
        if not start:
            where["correction"] = 1 - B2**t
        yield Update(kept, steps.rmsprop(LR, v, momentum=momentum, **where))


EXACT: dict[str, Callable[[], Updates]] = {
    "sgd": lambda: sgd(0.0, 0.0),
    "adam": lambda: adam(hat=False),
    "adam, eps before the correction": lambda: adam(hat=True),
    "adam, eps under the root": adam_inside,
    "amsgrad": amsgrad,
    "nadam": lambda: nadam(0.004),
    "nadam, Keras": lambda: nadam(1.0),
    "adam with Nesterov's momentum": nesterov_adam,
    "radam": radam,
    "radam, by arrays": radam_by_arrays,
    "adamax": adamax,
    "adagrad": lambda: adagrad(0.0),
    "adagrad, falling": lambda: adagrad(0.1),
    "adagrad, eps under the root": adagrad_inside,
    "rmsprop": lambda: rmsprop(0.0),
    "rmsprop, eps under the root": lambda: rmsprop(0.0, inside=True),
    "rmsprop, from one": lambda: rmsprop(0.0, start=1.0),
}
IN_THE_LIMIT: dict[str, Callable[[], Updates]] = {
    "momentum": lambda: sgd(0.9, 0.0),
    "nesterov": lambda: sgd(0.9, 0.0, nesterov=True),
    "dampened": lambda: sgd(0.9, 0.3),
    "rmsprop with momentum": lambda: rmsprop(0.9),
}


def times_gradient(step: Taken) -> np.ndarray:
    factor, denominator = step.step(xp)
    return factor * G / (1.0 if denominator is None else denominator)


@pytest.mark.parametrize("make", EXACT.values(), ids=EXACT)
def test_an_update_is_the_step_times_a_constant_gradient(make: Callable[[], Updates]) -> None:
    for update, _ in zip(make(), range(200), strict=False):
        np.testing.assert_allclose(times_gradient(update.step), update.moved, rtol=1e-11)


@pytest.mark.parametrize("make", IN_THE_LIMIT.values(), ids=IN_THE_LIMIT)
def test_a_sum_of_momentum_gets_there(make: Callable[[], Updates]) -> None:
    """The rate alone is a tenth of the step: the first update has no more in it."""
    updates = make()
    first = next(updates)
    assert (np.abs(first.moved) < 0.2 * np.abs(times_gradient(first.step))).all()
    for _ in range(3000):
        last = next(updates)
    np.testing.assert_allclose(times_gradient(last.step), last.moved, rtol=1e-11)


def test_the_denominator_compares_with_a_gradient_from_the_first_update_on() -> None:
    """As the bound does; RMSprop's own one is a tenth of the gradient there."""
    for name, make in EXACT.items():
        if name.startswith(("adam", "nadam", "amsgrad", "rmsprop")) and "from one" not in name:
            denominator = next(make()).step.step(xp).denominator
            assert denominator is not None
            np.testing.assert_allclose(denominator[[1, 3]], np.abs(G[[1, 3]]), rtol=0.05)
    v = next(rmsprop(0.0)).step.second
    assert v is not None
    np.testing.assert_allclose(np.sqrt(v), 0.1 * np.abs(G))


def test_before_the_first_update_the_step_is_zero_not_nan() -> None:
    """A scaler may have the optimizer skip it, with a moment of zeros."""
    step = steps.adam(LR, np.ones(2), correction=1 - B2**0, eps=EPS).step(xp)
    assert bounded(step, np.ones(2), xp).tolist() == [0.0, 0.0]


# --- the bound ------------------------------------------------------------------------------


def test_the_bound_is_a_floor_under_the_denominator() -> None:
    step = Step(2.0, np.array([1.0, 1e-8, 0.3]))
    found = bounded(step, np.array([1.0, 1.0, 3.0]), xp)
    np.testing.assert_array_equal(found, [2.0, 2.0 * SLACK, 2.0 / 0.3])


def test_a_step_without_a_denominator_has_no_bound() -> None:
    assert bounded(Step(0.1), None, xp) == 0.1
    assert bounded(steps.sgd(0.1).step(xp), None, xp) == 0.1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nothing_is_divided_by_zero(dtype: str) -> None:
    zeros = np.zeros(2, dtype)
    assert bounded(Step(0.0, zeros), zeros, xp).tolist() == [0.0, 0.0]
    assert np.isfinite(bounded(Step(0.1, zeros), zeros, xp)).all()


def test_a_nan_stays_visible() -> None:
    nan = np.array([math.nan])
    assert np.isnan(bounded(Step(0.1, nan), np.ones(1), xp)).all()
    assert np.isnan(bounded(Step(0.1, np.ones(1)), nan, xp)).all()
