"""skorch's nets with PenalizeCallback, against loops by hand that know nothing of either."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import by_hand
import joblib
import numpy as np
import pytest
import torch
from by_hand import STRENGTHS, apart
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetRegressor
from skorch.callbacks import (
    Callback,
    Checkpoint,
    EarlyStopping,
    GradientNormClipping,
    LoadInitState,
)
from torch import nn

import penalize
from penalize import (
    L1,
    L2,
    AppliedTwiceError,
    GroupLasso,
    LostAttachmentError,
    ModeError,
    NoMatchError,
    Regularizer,
    RulesError,
    StateError,
    TrainerError,
    everything,
    kernels,
    warmup,
)
from penalize.integrations.skorch import PenalizeCallback

RULES: dict[Any, Regularizer] = {kernels: L2(STRENGTHS[1]), "0": L1(STRENGTHS[0])}
SGD, ADAM = torch.optim.SGD, torch.optim.Adam
X, Y = by_hand.data(20)


def net(*callbacks: Any, **arguments: Any) -> NeuralNetRegressor:
    """Of batches in their order: five are an epoch."""
    defaults: dict[str, Any] = {
        **{"module": by_hand.network, "optimizer": SGD, "lr": by_hand.RATE, "max_epochs": 2},
        **{"batch_size": 4, "train_split": None, "verbose": 0, "callbacks": list(callbacks)},
    }
    return NeuralNetRegressor(**{**defaults, **arguments})


def seen(epochs: int) -> list[by_hand.Batch]:
    return by_hand.batches(5) * epochs


MODES = [("gradient", ADAM), ("decoupled", ADAM), ("proximal", SGD)]


@pytest.mark.parametrize(("mode", "make"), MODES, ids=[mode for mode, _ in MODES])
def test_ten_steps_of_clipped_gradients(mode: str, make: Any) -> None:
    callbacks = [PenalizeCallback(RULES, mode), GradientNormClipping(0.1)]
    fitted = net(*callbacks, optimizer=make).fit(X, Y)
    expected = by_hand.trained(by_hand.network(), seen(2), mode, make, clip=0.1)
    assert apart(fitted.module_, expected) < 1e-12
    assert apart(fitted.module_, by_hand.network()) > 0.01


def test_what_is_in_the_history() -> None:
    watching = EarlyStopping(monitor="penalty")
    with pytest.raises(KeyError, match="'penalty' was not found"):
        net(watching, PenalizeCallback(RULES)).fit(X, Y)
    fitted = net(PenalizeCallback(RULES, "proximal"), watching, max_epochs=3).fit(X, Y)
    ((_, callback),) = [each for each in fitted.callbacks_ if "Penalize" in each[0]]
    last = {key: n for key, n in fitted.history[-1].items() if key[:4] in ("pena", "zero")}
    assert last == penalize.log(callback.plan_)
    assert last["penalty"] == sum(callback.plan_.breakdown().values())
    assert last.keys() == {"penalty", "penalties/0", "penalties/kernels", "zeros"}
    assert fitted.history[:, "penalty"][0] != last["penalty"]
    assert "rule '0' (test_skorch.py:" in str(callback.plan_)


# --- going on -----------------------------------------------------------------------------------

# At step 0 nothing, at step 8 all: who begins anew at the sixth step ends elsewhere.
GROWING = {kernels: (L2(0.3) + L1(0.05)) * warmup(8)}
PENALIZED = {"mode": "halfspace", "average": 0.9}


def whole() -> NeuralNetRegressor:
    return net(PenalizeCallback(GROWING, **PENALIZED), optimizer=ADAM).fit(X, Y)


def stopped(*callbacks: Any) -> NeuralNetRegressor:
    callbacks = (PenalizeCallback(GROWING, **PENALIZED), *callbacks)
    return net(*callbacks, optimizer=ADAM, max_epochs=1).fit(X, Y)


def through_a_pickle(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


@pytest.mark.parametrize("copied", [lambda each: each, copy.deepcopy, through_a_pickle])
def test_partial_fit_goes_on(copied: Any) -> None:
    first = stopped()
    again = copied(copied(first))
    np.testing.assert_array_equal(again.predict(X), first.predict(X))
    again.partial_fit(X, Y)
    assert apart(again.module_, whole().module_) == 0
    assert again.callbacks[0].attachment_.steps == [10]
    assert first.callbacks[0].attachment_.alive  # a copy has taken nothing from it


def test_a_schedule_that_began_anew_would_be_seen() -> None:
    first = stopped()
    first.callbacks[0].attachment_.detach()
    first.callbacks[0].trained_.clear()
    assert apart(first.partial_fit(X, Y).module_, whole().module_) > 1e-3
    first = stopped()
    first.callbacks[0].attachment_.detach()  # which training undoes
    assert apart(first.partial_fit(X, Y).module_, whole().module_) == 0


def test_fit_begins_anew_and_a_warm_start_goes_on() -> None:
    twice = whole()
    assert apart(twice.fit(X, Y).module_, whole().module_) == 0
    assert twice.callbacks[0].attachment_.steps == [10]
    copied = through_a_pickle(twice).fit(X, Y)
    assert apart(copied.module_, twice.module_) == 0
    warm = stopped().set_params(warm_start=True).fit(X, Y)
    assert apart(warm.module_, twice.module_) == 0


@pytest.mark.parametrize("how", ["load_params", "LoadInitState", "LoadInitState first"])
def test_a_checkpoint_goes_on(tmp_path: Path, how: str) -> None:
    saved = Checkpoint(monitor=None, dirname=str(tmp_path))
    stopped(saved)
    callback = PenalizeCallback(GROWING, **PENALIZED)
    if how == "load_params":
        again = net(callback, optimizer=ADAM, max_epochs=1).initialize()
        again.load_params(checkpoint=saved)
    else:
        both = [callback, LoadInitState(saved)]
        order = both[::-1] if how == "LoadInitState first" else both
        again = net(*order, optimizer=ADAM, max_epochs=1).initialize()
    again.partial_fit(X, Y)
    assert apart(again.module_, whole().module_) == 0


def test_the_best_checkpoint_is_loaded_at_the_end(tmp_path: Path) -> None:
    class Halfway(Callback):  # type: ignore[misc]
        def on_epoch_end(self, net: Any, **_: Any) -> None:
            net.history.record("halfway", len(net.history) == 1)

    saved = Checkpoint(monitor="halfway", dirname=str(tmp_path), load_best=True)
    callback = PenalizeCallback(GROWING, **PENALIZED)
    best = net(callback, Halfway(), saved, optimizer=ADAM, max_epochs=2).fit(X, Y)
    assert callback.attachment_ is not None
    assert callback.attachment_.steps == [5]
    _drop(best, "Checkpoint")
    best.partial_fit(X, Y, epochs=1)
    assert apart(best.module_, whole().module_) == 0


def _drop(net: NeuralNetRegressor, name: str) -> None:
    net.callbacks_ = [(known, each) for known, each in net.callbacks_ if known != name]


def test_a_copy_of_the_optimizer_alone_is_lost() -> None:
    copied = copy.deepcopy(stopped())
    model = copied.module_
    model(X).sum().backward()
    with pytest.raises(LostAttachmentError, match="This Adam is a copy of one"):
        copied.optimizer_.step()


def test_a_callback_in_two_nets() -> None:
    callback = PenalizeCallback(GROWING, **PENALIZED)
    nets = [net(callback, optimizer=ADAM, max_epochs=1).fit(X, Y) for _ in range(2)]
    copied = through_a_pickle(nets[0])
    for each in nets:
        assert apart(each.partial_fit(X, Y).module_, whole().module_) == 0
    with pytest.raises(StateError, match="saved with penalties, and without their state"):
        copied.partial_fit(X, Y)


# --- parameters ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "callbacks", [[PenalizeCallback(RULES)], [("penalties", PenalizeCallback(RULES))]]
)
def test_its_arguments_are_parameters(callbacks: Any) -> None:
    name = callbacks[0][0] if isinstance(callbacks[0], tuple) else "PenalizeCallback"
    key = f"callbacks__{name}__rules"
    fitted = clone(net(callbacks=callbacks)).fit(X, Y)
    assert fitted.get_params()[key] == RULES
    weaker = {kernels: L2(0.0)}
    fitted.set_params(**{key: weaker, f"callbacks__{name}__mode": "proximal"}).fit(X, Y)
    assert apart(fitted.module_, net().fit(X, Y).module_) < 1e-12
    ((_, callback),) = [each for each in fitted.callbacks_ if each[0] == name]
    assert (callback.attachment_.mode, callback.rules) == ("proximal", weaker)


def test_other_rules_begin_anew_on_the_weights_that_are_there() -> None:
    changed = net(PenalizeCallback({**RULES}), max_epochs=1).fit(X, Y)
    changed.callbacks[0].rules[kernels] = L2(0.7)
    changed.partial_fit(X, Y)
    assert changed.callbacks[0].attachment_.steps == [5]
    model = by_hand.trained(by_hand.network(), seen(1), "gradient", SGD)
    other = net(PenalizeCallback({**RULES, kernels: L2(0.7)}), max_epochs=1).initialize()
    other.module_.load_state_dict(model.state_dict())
    assert apart(changed.module_, other.partial_fit(X, Y).module_) < 1e-12


def test_a_class_that_is_set_up_by_parameters() -> None:
    lazily = net(PenalizeCallback, callbacks__PenalizeCallback__rules=RULES)
    assert apart(lazily.fit(X, Y).module_, net(PenalizeCallback(RULES)).fit(X, Y).module_) == 0


def test_a_grid_of_strengths() -> None:
    strengths = [0.0, 0.01, 10.0]
    grid = {"callbacks__PenalizeCallback__rules": [{everything: L2(s)} for s in strengths]}
    search = GridSearchCV(net(PenalizeCallback(), verbose=0), grid, cv=2, n_jobs=2)
    with joblib.parallel_backend("threading"):  # as in processes, but for their start
        search.fit(X.numpy(), Y.numpy())
    losses = -search.cv_results_["mean_test_score"]
    assert losses[2] > losses[0] + 0.01
    best = search.best_estimator_
    assert best.history[-1]["penalties/everything"] == best.history[-1]["penalty"]
    assert "rule (test_skorch.py:" in str(dict(best.callbacks_)["PenalizeCallback"].plan_)
    assert len(set(losses)) == 3


def test_several_modules_and_optimizers() -> None:
    class Both(NeuralNetRegressor):  # type: ignore[misc]
        def initialize_module(self) -> Any:
            super().initialize_module()
            self.second_ = nn.Linear(1, 1).double()
            return self

        def initialize_optimizer(self) -> Any:
            self.optimizer_ = SGD(self.module_.parameters(), lr=0.1)
            self.second_optimizer_ = SGD(self.second_.parameters(), lr=0.1)
            return self

        def infer(self, x: Any, **_: Any) -> Any:
            return self.second_(self.module_(x))

    callback = PenalizeCallback({"module.0": L1(0.1), "second": L2(0.1)})
    Both(by_hand.network, callbacks=[callback], train_split=None, verbose=0, max_epochs=1).fit(X, Y)
    assert list(callback.plan_.breakdown()) == ["module.0.weight", "second.weight"]
    assert callback.attachment_.steps == [1, 1]


# --- what is refused ----------------------------------------------------------------------------


def told(error: Any) -> str:
    return " ".join([str(error.value), *error.value.__notes__])


def test_two_of_them() -> None:
    both = net(PenalizeCallback(RULES), PenalizeCallback({"2": L1(0.1)}))
    with pytest.raises(
        TrainerError, match=r"^callbacks= of this NeuralNetRegressor has .*_1 and P"
    ):
        both.fit(X, Y)


def test_groups_that_span_parameters() -> None:
    unit = {"0": "outputs", "2.weight": "inputs"}
    together = {"hidden": (GroupLasso(1e3), unit)}
    callback = PenalizeCallback(mode="proximal", together=together)
    trained = net(callback)
    trained.fit(X, Y)
    (plan,) = [each.plan_ for _, each in trained.callbacks_ if isinstance(each, PenalizeCallback)]
    assert plan.breakdown() == {"hidden": 0.0}
    assert not trained.module_[0].bias.any()
    assert clone(callback).together == together


def test_names_are_those_of_the_module() -> None:
    with pytest.raises(NoMatchError, match=r"rule 'module_\.0' \(test_skorch\.py:\d+\)") as error:
        net(PenalizeCallback({"module_.0": L1(0.1)})).fit(X, Y)
    assert "names are those of net.module_, as net.module_.named_parameters()" in told(error)


def test_weight_decay_beside_an_l2() -> None:
    with pytest.raises(AppliedTwiceError, match=r"weight_decay=0\.1 of SGD") as error:
        net(PenalizeCallback(RULES), optimizer__weight_decay=0.1).fit(X, Y)
    assert "write optimizer__weight_decay=0" in told(error)


def test_arguments_that_are_none() -> None:
    with pytest.raises(RulesError, match="The rules are 3"):
        net(PenalizeCallback(3)).fit(X, Y)  # type: ignore[arg-type]
    with pytest.raises(ModeError, match="There is no mode 'prox'"):
        net(PenalizeCallback(RULES, "prox")).fit(X, Y)


def test_a_checkpoint_of_other_rules(tmp_path: Path) -> None:
    saved = Checkpoint(monitor=None, dirname=str(tmp_path))
    stopped(saved)
    again = net(PenalizeCallback(RULES), optimizer=ADAM).initialize()
    again.load_params(checkpoint=saved)
    for _ in range(2):  # and is not forgotten either
        with pytest.raises(StateError, match="it has mode='halfspace', and here") as error:
            again.partial_fit(X, Y)
        assert "that f_optimizer= (or the pickled net) was saved with" in told(error)
    _drop(again, "PenalizeCallback")
    with pytest.raises(LostAttachmentError):
        again.partial_fit(X, Y)
    begun = net(PenalizeCallback(RULES), optimizer=ADAM).fit(X, Y)
    with pytest.raises(StateError, match="it has mode='halfspace', and here"):
        begun.load_params(checkpoint=saved)


def test_a_checkpoint_without_the_state(tmp_path: Path) -> None:
    optimizer = stopped().optimizer_
    state = optimizer.state_dict()
    state["param_groups"][0]["penalize"] = True  # as another attachment than ours writes it
    torch.save(state, tmp_path / "optimizer.pt")
    again = net(PenalizeCallback(GROWING, **PENALIZED), optimizer=ADAM).initialize()
    again.load_params(f_optimizer=tmp_path / "optimizer.pt")
    with pytest.raises(StateError, match="saved with penalties, and without their state") as error:
        again.partial_fit(X, Y)
    assert "load_params(f_params=...) alone" in told(error)


def test_a_checkpoint_of_a_net_without_penalties_goes_on_with_them(tmp_path: Path) -> None:
    saved = Checkpoint(monitor=None, dirname=str(tmp_path))
    net(saved, optimizer=ADAM, max_epochs=1).fit(X, Y)
    again = net(PenalizeCallback(RULES), optimizer=ADAM, max_epochs=1).initialize()
    again.load_params(checkpoint=saved)
    again.partial_fit(X, Y)
    assert again.callbacks[0].attachment_.steps == [5]
