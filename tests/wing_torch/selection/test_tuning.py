"""Studies of strengths that each rule searches for."""

import copy
import math
import sys
import threading
import warnings

import joblib
import optuna
import pytest
import torch
from torch import nn
from wing_torch.selection.problems import network, training

from penalize import (
    L1,
    L1L2,
    L2,
    MissingPackageError,
    PathError,
    RulesError,
    biases,
    kernels,
    search,
)
from penalize.torch import path, regularize, tune

optuna.logging.set_verbosity(optuna.logging.WARNING)
RULES = {kernels: L1(search(1e-4, 1.0)), "2": L2(search(1e-3, 1e1)) + L1(0.01), biases: None}


def study(trials=4, rules=None, fit=None, **more):
    settings = {"trials": trials, "storage": None, "progress": False, **more}
    fit = training(epochs=2) if fit is None else fit
    return tune(fit, network(), RULES if rules is None else rules, **{"folds": 2, **settings})


def test_the_rules_of_the_best_trial_make_a_plan():
    found = study(6)
    first, second = (value for _, value in found.rules[:2])
    assert 1e-4 <= first.strength <= 1.0
    assert 1e-3 <= second.terms[0].strength <= 1e1
    assert second.terms[1] == L1(0.01)
    params = found.study.best_params
    assert params == {
        "kernels: L1.strength": first.strength,
        "named('2'): Sum.terms[0].strength": second.terms[0].strength,
    }
    plan = regularize(network(), found.rules)
    again = path(training(epochs=2), plan, [1.0], 2, refit=False, progress=False)
    assert again.summary[0].loss == pytest.approx(found.study.best_value, rel=1e-9)
    assert found.study.best_trial.user_attrs.keys() == {"error", "nonzero"}


def test_a_bare_regularizer_and_rules_that_look_alike():
    assert study(1, L1L2(search(1e-4, 1e-2), search(0, 1, log=False))).rules[0][0] is kernels
    alike = [("0", L1(search(1e-4, 1e-2))), ("0", L1(search(1e-4, 1e-2)))]
    names = {"named('0') #1: L1.strength", "named('0') #2: L1.strength"}
    assert study(1, alike).study.best_params.keys() == names


def test_a_study_goes_on_from_its_storage(tmp_path):
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    first = study(2, storage=storage)
    second = study(3, storage=storage)
    assert len(second.study.trials) == 3
    kept = [trial.params for trial in second.study.trials[:2]]
    assert kept == [trial.params for trial in first.study.trials[:2]]
    assert len(study(3, storage=storage).study.trials) == 3
    others = {
        "rules": {"rules": {kernels: L1(search(1e-6, 1.0))}},
        "fit": {"fit": training(epochs=3)},
        "folds": {"seed": 1},
    }
    for what, changes in others.items():
        with pytest.raises(
            PathError, match=rf"'penalize' in sqlite.* else \({what}.*there and.*give it another"
        ):
            study(3, storage=storage, **changes)
    foreign = optuna.create_study(storage=storage, study_name="mine")
    foreign.optimize(lambda trial: trial.suggest_float("x", 0, 1), 1)
    with pytest.raises(
        PathError, match=r"The study 'mine' in sqlite:.*has trials of its own; give"
    ):
        study(1, storage=storage, name="mine")
    assert optuna.load_study(storage=storage, study_name="mine").user_attrs == {}
    other = study(1, L1(search(1e-6, 1.0)), storage=storage, name="other")
    assert len(other.study.trials) == 1


def test_the_default_storage_is_sqlite_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tune(training(epochs=1), network(), RULES, 2, trials=1, progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["penalize-study.db"]


def test_the_same_seed_gives_the_same_study():
    one, other = study(3), study(3)
    assert [t.params for t in one.study.trials] == [t.params for t in other.study.trials]
    assert [t.value for t in one.study.trials] == [t.value for t in other.study.trials]


def test_a_trial_that_is_not_finite_fails_and_the_study_goes_on():
    losses = iter([math.nan, 1.0, 2.0])

    def fit(plan, train, valid):
        plan.attach(torch.optim.SGD(plan.model.parameters()))
        return next(losses)

    folds = [([0, 1], [2])]
    settings = {"storage": None, "progress": False}
    found = tune(fit, network(), RULES, folds, trials=3, **settings)
    assert [t.state.name for t in found.study.trials] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert found.study.best_value == 1.0
    losses = iter([math.nan])
    nothing = tune(fit, network(), RULES, folds, trials=1, **settings)
    with pytest.raises(PathError, match="No trial has ended with a finite loss"):
        _ = nothing.rules


def errors():
    """The warnings that are errors here."""
    return [each for each in warnings.filters if each[0] == "error"]


def test_trials_side_by_side_give_what_they_give_alone():
    """In threads, which share what torch draws at random, all of these losses are others."""
    model = network(nn.Tanh(), nn.Dropout(0.5))
    before = copy.deepcopy(model.state_dict())
    generator, filters = torch.get_rng_state(), errors()

    def fit(plan, train, valid):  # a function within a function, as notebooks have them
        return training(epochs=2)(plan, train, valid)

    losses = []
    for jobs in (2, 1):
        sampler = optuna.samplers.RandomSampler(seed=1)
        settings = {"trials": 3, "storage": None, "sampler": sampler, "progress": False}
        folds = [(range(40), range(40, 61))]
        rules = {kernels: L1(search(1e-4, 1.0))}
        found = tune(fit, model, rules, folds, jobs=jobs, **settings)
        losses.append([(t.params, t.value, t.user_attrs["nonzero"]) for t in found.study.trials])
    assert losses[0] == losses[1]
    assert torch.equal(torch.get_rng_state(), generator)
    assert errors() == filters
    assert all(torch.equal(w, before[name]) for name, w in model.state_dict().items())


def not_finite(plan, train, valid):
    plan.attach(torch.optim.SGD(plan.model.parameters()))
    return math.nan


def raises(plan, train, valid):
    raise KeyError("no such thing")


def test_side_by_side_a_trial_may_fail():
    folds, storage = [([0, 1], [2])], optuna.storages.InMemoryStorage()
    settings = {"storage": storage, "progress": False, "jobs": 2}
    found = tune(not_finite, network(), RULES, folds, trials=2, **settings)
    assert [t.state.name for t in found.study.trials] == ["FAIL", "FAIL"]
    with pytest.raises(KeyError, match="no such thing"):
        tune(raises, network(), RULES, folds, trials=2, name="raises", **settings)
    states = [t.state.name for t in optuna.load_study(study_name="raises", storage=storage).trials]
    assert states == ["FAIL"] * 2


def test_jobs_that_cannot_be():
    lock = threading.Lock()

    def holds_a_lock(plan, train, valid):
        return lock.locked()

    with pytest.raises(
        PathError, match=r"jobs=2 sends the fit.*cannot be pickled \(TypeError: cannot .*lock'"
    ):
        tune(holds_a_lock, network(), RULES, [([0], [1])], trials=2, storage=None, jobs=2)
    threads = joblib.parallel_config(backend="threading")
    with threads, pytest.raises(PathError, match=r"run in threads.* a run of joblib itself.*leave"):
        study(2, jobs=2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"jobs": 0}, "jobs=0; expected a whole number other than 0"),
        ({"trials": 0}, "trials=0; expected a whole number >= 1"),
        ({"seed": 2**32}, "seed=4294967296; expected a whole number from 0 to 4294967295"),
        ({"seed": True}, "seed=True"),
        ({"folds": None}, "folds=None holds nothing out; trials are compared"),
        ({"folds": 0.5}, "folds=0.5; expected a number of folds"),
    ],
)
def test_numbers_that_make_no_study(changes, said):
    with pytest.raises(PathError, match=said):
        study(**changes)


def test_rules_without_a_range_and_a_missing_package(monkeypatch):
    with pytest.raises(PathError, match="No strength in the rules is searched"):
        study(1, L1(0.1))
    with pytest.raises(RulesError, match=r"The rules are 3, a int; .*Write L2\(3\)"):
        study(1, 3)
    monkeypatch.setitem(sys.modules, "joblib", None)
    with pytest.raises(MissingPackageError, match=r"tune\(jobs=…\) needs joblib.*\[select\]"):
        study(1, jobs=2)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingPackageError, match=r"tune needs optuna.*extra \[select\]"):
        study(1)
