"""``PenalizeCallback`` of Keras: what does not depend on the backend."""

from __future__ import annotations

import math
import sys
from unittest.mock import patch

import keras
import pytest
from callback import RULES, fit
from fitting import network, same, weights
from keras import layers, optimizers
from reference import raises

from penalize import (
    L1,
    L2,
    AppliedTwiceError,
    BalanceWarning,
    GroupLasso,
    MissingPackageError,
    ModeError,
    NeverAppliedWarning,
    NoMatchError,
    RulesError,
    TrainerError,
    biases,
    kernels,
)
from penalize.integrations.keras import PenalizeCallback
from penalize.keras import plan_on, regularize


def check_it_goes_on_with_what_is_in_force() -> None:
    whole, model = network(), network()
    plan = regularize(whole, RULES)
    fit(whole, epochs=2)
    callback = PenalizeCallback(RULES)
    for again in (callback, PenalizeCallback({**RULES})):
        fit(model, again)
        assert again.plan is callback.plan
    same(weights(whole), weights(model), atol=0)
    assert callback.plan is not None
    assert callback.plan.in_force
    looking = PenalizeCallback()
    assert fit(whole, looking)["penalty"] == [sum(plan.breakdown().values())]
    assert looking.plan is plan
    error = raises(
        AppliedTwiceError, "by the plan of logged.py:", lambda: fit(whole, PenalizeCallback(RULES))
    )
    assert "PenalizeCallback() without rules goes on with" in error.__notes__[0]
    callback.plan.detach()
    assert plan_on(model.variables[0]) is None


def check_biases_and_plans_on_parts_of_a_model() -> None:
    parts = [network(), network()]
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Add()([part(inputs) for part in parts]))
    model.compile("sgd", "mse")
    plans = [regularize(part, {"first": L1(0.02), biases: L2(1.0)}) for part in parts]
    history = fit(model, PenalizeCallback())
    expected = sum(sum(plan.breakdown().values()) for plan in plans)
    assert history["penalty"] == [pytest.approx(expected)]
    assert history["penalties/first"][0] + history["penalties/biases"][0] == pytest.approx(expected)


def check_what_layers_declare_is_logged() -> None:
    model, plain = network(L2(0.1)), network(keras.regularizers.L2(0.1))
    history = fit(model, PenalizeCallback())
    fit(plain)
    same(weights(model), weights(plain), atol=1e-7)
    assert set(history) > {"penalties/first.kernel", "penalties/second.kernel"}


def check_it_warns_of_penalties_that_are_none_or_too_much() -> None:
    place = r"\(logged\.py:\d+\) penalizes no variable of 'seq.*Give it rules"
    for rules in ({kernels: None}, None):
        with pytest.warns(NeverAppliedWarning, match=place):
            fit(network(), PenalizeCallback(rules))
    frozen = network()
    frozen.layers[0].trainable = False
    callback = PenalizeCallback({"first": L1(0.1)})
    with pytest.warns(NeverAppliedWarning, match="none has a regularizer and is trainable"):
        fit(frozen, callback)
    fit(network(), callback)
    lengths = {key: len(numbers) for key, numbers in callback.history.items()}
    assert lengths == dict.fromkeys(["loss", "penalty", "penalties/first", "zeros"], 2)
    assert math.isnan(callback.history["zeros"][0])
    for mode in ("loss", "proximal"):
        model = network(optimizer=optimizers.SGD(1e-5))
        with pytest.warns(BalanceWarning, match=r"penalty is \S+, over 10 times what the loss is"):
            fit(model, PenalizeCallback({kernels: L2(50.0)}, mode))
        fit(model, PenalizeCallback({kernels: L2(50.0)}, mode))  # said once


def check_what_is_refused() -> None:
    raises(RulesError, "The rules are 3", lambda: PenalizeCallback(3))
    raises(ModeError, "There is no mode 'gradient'", lambda: PenalizeCallback(RULES, "gradient"))
    model = network()
    frist = PenalizeCallback({"frist": L1(1.0)})
    error = raises(NoMatchError, "(in rule 'frist' (logged.py:", lambda: fit(model, frist))
    assert "paths of layers and variables below the model that is trained" in error.__notes__[0]
    both = [PenalizeCallback(RULES), PenalizeCallback({"second": L2(0.1)})]
    twice = raises(AppliedTwiceError, "by the plan of logged.py:", lambda: fit(model, *both))
    assert "callback.plan.detach() ends that of a callback" in twice.__notes__[0]
    raises(TrainerError, "no epoch was trained", PenalizeCallback(RULES).plot)


def check_the_plot_has_a_line_for_each_number() -> None:
    callback = PenalizeCallback({kernels: L2(0.01), "first": GroupLasso(0.01)}, "proximal")
    fit(network(), callback, epochs=3)
    left, right = callback.plot().axes
    assert [line.get_label() for line in left.lines] == ["loss", "penalty", "first", "kernels"]
    assert [line.get_label() for line in right.lines] == ["zeros", "groups/first"]
    assert list(left.lines[1].get_ydata()) == callback.history["penalty"]
    with patch.dict(sys.modules, {"matplotlib.figure": None}):
        raises(MissingPackageError, "PenalizeCallback.plot needs matplotlib", callback.plot)
