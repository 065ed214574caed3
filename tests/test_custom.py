"""A user's own penalties: functions, and a class of ten lines."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from frameworks import FRAMEWORKS
from torch import nn
from torch.optim import SGD

from penalize import (
    L1,
    ArrayError,
    ConfigError,
    Custom,
    NoProximalOperatorError,
    PenaltyError,
    Regularizer,
    RegularizerError,
    RulesError,
    StrengthError,
    kernels,
)
from penalize.torch import regularize

W = np.random.default_rng(0).normal(size=(3, 2))


@dataclass(frozen=True, repr=False)
class Quartic(Regularizer):
    """λ Σ w⁴: all that a regularizer needs."""

    strength: float

    def _value(self, w: Any, xp: Any) -> Any:
        return self.strength * xp.sum(w * w * w * w)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_framework_differentiates(framework: str) -> None:
    make, back, differentiate = FRAMEWORKS[framework]
    r, w = Quartic(0.5), make(W, "float64")
    np.testing.assert_allclose(back(r.gradient(w)), 2 * W**3, rtol=1e-12)
    np.testing.assert_allclose(back(differentiate(r, w)), 2 * W**3, rtol=1e-12)
    half = r.gradient(make(W, "float16"))
    assert "float16" in str(half.dtype)
    with pytest.raises(NoProximalOperatorError, match="no closed form is known"):
        r.prox(w, 0.1)


def test_in_a_traced_function() -> None:
    import jax
    import tensorflow as tf

    r = Quartic(0.5)
    np.testing.assert_allclose(jax.jit(r.gradient)(W), 2 * W**3, rtol=1e-6)
    np.testing.assert_allclose(tf.function(r.gradient)(tf.constant(W)), 2 * W**3, rtol=1e-12)
    compiled = torch.compile(r.gradient, fullgraph=True, backend="eager")
    np.testing.assert_allclose(compiled(torch.tensor(W)), 2 * W**3, rtol=1e-12)


def test_numpy_has_no_differentiation() -> None:
    assert float(Quartic(0.5)(W)) == pytest.approx(0.5 * (W**4).sum())
    with pytest.raises(ArrayError, match="this regularizer has no gradient of its own"):
        Quartic(0.5).gradient(W)


def test_a_function_in_a_plan() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)).double()
    by_hand = copy.deepcopy(model)
    optimizer, other = SGD(model.parameters(), 0.1), SGD(by_hand.parameters(), 0.1)
    plan = regularize(model, {kernels: Custom(lambda w: w.pow(4).sum(), 0.5) + L1(0.1)})
    plan.attach(optimizer)
    for m, o, penalty in ((model, optimizer, False), (by_hand, other, True)):
        loss = m(torch.ones(4, 2, dtype=torch.float64)).square().mean()
        if penalty:
            kernels_of = [layer.weight for layer in m]
            loss = loss + sum(0.5 * w.pow(4).sum() + 0.1 * w.abs().sum() for w in kernels_of)
        loss.backward()
        o.step()
    torch.testing.assert_close(dict(model.state_dict()), dict(by_hand.state_dict()))
    assert "Custom(<lambda>, 0.5)" in str(plan)


def test_a_gradient_and_a_prox_that_are_given() -> None:
    r = Custom(
        lambda w: w.sum() * float("nan"),
        2.0,
        gradient=lambda w: w + 1,
        prox=lambda w, step: w - step,
    )
    np.testing.assert_allclose(r.gradient(W), 2 * (W + 1))
    np.testing.assert_allclose(r.prox(W, 0.25), W - 0.5)
    np.testing.assert_allclose((3 * r).prox(W, 0.25), W - 1.5)
    with pytest.raises(NoProximalOperatorError, match="for one step alone"):
        r.prox(W, np.ones_like(W))
    with pytest.raises(NoProximalOperatorError, match="none was given"):
        Custom(np.sum).prox(W, 1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Custom(3), "Custom got function=3; expected a function"),
        (lambda: Custom(L1(1.0)), r"Custom got function=L1\(1\.0\)"),
        (lambda: Custom(np.sum, gradient=1), "Custom got gradient=1"),
        (lambda: Custom(np.sum, prox="soft"), "Custom got prox='soft'"),
    ],
)
def test_what_is_no_function(make: Any, message: str) -> None:
    with pytest.raises(RegularizerError, match=message):
        make()


def test_other_messages() -> None:
    with pytest.raises(
        PenaltyError, match=r"What Custom\(abs\w*\) has shape \(3, 2\); expected a sc"
    ):
        Custom(np.abs)(W)
    with pytest.raises(
        PenaltyError, match=r"returned a float; expected a scalar of the array's fr"
    ):
        Custom(lambda w: 1.0)(W)
    with pytest.raises(StrengthError, match="Custom got strength=-1"):
        Custom(np.sum, -1)
    config = Custom(np.sum, 2.0).get_config()
    assert config == {"function": "numpy.sum", "strength": 2.0}
    with pytest.raises(ConfigError, match="a function is not saved; a subclass of Regularizer is"):
        Custom.from_config(config)
    with pytest.raises(RulesError, match=r"Write Custom\(sum\)\."):
        regularize(nn.Linear(2, 2), {kernels: sum})
