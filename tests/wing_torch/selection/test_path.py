"""A path: its grid, its choices, warm starts, early ends, many jobs, and what it refuses."""

import dataclasses
import gc
import itertools
import math
import statistics
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.model_selection import KFold
from torch import nn
from wing_torch.selection.problems import X, Y, network, training

from penalize import (
    L1,
    L2,
    AppliedTwiceError,
    AuditError,
    GroupLasso,
    NeverAppliedWarning,
    NoStrengthMaxError,
    PathError,
    kernels,
    of_type,
    warmup,
)
from penalize.selection.folds import folds_of
from penalize.selection.result import FoldRow
from penalize.torch import Path, Training, geometric, path, regularize, strength_max
from penalize.torch.selection.learner import ModuleLearner

quiet = partial(path, progress=False)
FOLDS = [(range(0, 40), range(40, 50)), (range(20, 61), range(0, 20))]


def fit(plan, train, valid):
    """A loop as users write it."""
    model = plan.model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plan.attach(optimizer, mode="proximal")
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(X[train]), Y[train]).backward()
        optimizer.step()
    with torch.no_grad():
        return nn.functional.mse_loss(model(X[valid]), Y[valid])


# --- the grid -----------------------------------------------------------------------------------


def test_auto_is_twenty_strengths_from_the_largest_to_a_thousandth():
    plan = regularize(nn.Linear(6, 1).double(), L1(2.0))
    found = quiet(training(epochs=1), plan, folds=None)
    top = strength_max(lambda: training().data_loss(plan.model), plan) * (1 + 1e-5)
    assert found.strengths == geometric(top, top / 1000, 20)
    assert len(found.strengths) == 20
    assert found.strengths[0] == top
    assert found.strengths[-1] == pytest.approx(top / 1000)
    halved = quiet(training(epochs=1), plan, 3, folds=None).strengths
    assert halved == geometric(top, top / 1000, 3)


def test_strengths_go_from_strong_to_weak():
    plan = regularize(network(), L2(1.0))
    found = quiet(training(epochs=1), plan, np.array([0.1, 1.0, 0.0]), 2)
    assert found.strengths == [1.0, 0.1, 0.0]


@pytest.mark.parametrize(
    ("rules", "sparse"),
    [(L1(1.0), True), (GroupLasso(1.0, groups="inputs"), True), (L2(1.0), False)],
)
def test_strength_max_of_a_deep_network_is_a_start(rules, sparse):
    """All at zero is stationary at every strength there, so each parameter is looked at alone."""
    model = network()
    plan = regularize(model, rules)

    def loss():
        return training().data_loss(model)

    if not sparse:
        with pytest.raises(NoStrengthMaxError, match=r"L2\(1.0\) on '0.weight' leaves nothing"):
            strength_max(loss, plan)
        return
    found = strength_max(loss, plan)
    alone = []
    for layer in (model[0], model[2]):
        kept = layer.weight.detach().clone()
        layer.weight.data.zero_()
        (g,) = torch.autograd.grad(loss(), layer.weight)
        resolved = next(t.regularizer for t in plan.targets() if t.parameters[0] is layer.weight)
        alone.append(float(resolved.strength_max(g)))
        layer.weight.data.copy_(kept)
    assert found == max(alone)


def test_strength_max_says_what_is_wrong():
    model = nn.Linear(6, 1).double()
    none = regularize(model, {kernels: None})
    with pytest.raises(PathError, match="The plan penalizes nothing"):
        strength_max(lambda: model(X).mean(), none)
    plan = regularize(model, L1(1.0))
    with pytest.raises(PathError, match=r"has the dual norm 0.0; check that the loss is finite"):
        strength_max(lambda: torch.zeros(()) * model.bias.sum(), plan)
    with pytest.raises(PathError, match=r"has the dual norm 0.0"):
        strength_max(lambda: torch.ones(()), plan)  # depends on nothing
    with pytest.raises(PathError, match=r"The loss returned a shape \(61, 1\); return the mean"):
        strength_max(lambda: model(X), plan)
    with pytest.raises(PathError, match="The loss returned a float"):
        strength_max(lambda: 0.5, plan)
    with pytest.raises(PathError, match="strength_max got are a Tensor and a Plan"):
        strength_max(model(X).mean(), plan)
    with pytest.raises(PathError, match="strength_max got are a function and a Linear"):
        strength_max(lambda: model(X).mean(), model)
    with pytest.raises(PathError, match="has the dual norm nan"):
        strength_max(lambda: (model(X) * math.nan).mean(), plan)
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(6, 1).double())
    with pytest.raises(PathError, match="is computed from other parameters"):
        strength_max(lambda: normed(X).mean(), regularize(normed, L1(1.0)))


def test_grids():
    assert geometric(1.0, 0.01, 3) == pytest.approx([1.0, 0.1, 0.01])
    assert geometric(2.0, 2.0, 1) == [2.0]
    for largest, smallest, count in [(1, 2, 3), (1, 0, 3), (math.inf, 1, 3), (1, 0.1, 0)]:
        with pytest.raises(PathError, match="A grid of"):
            geometric(largest, smallest, count)


# --- what it leaves behind ----------------------------------------------------------------------


@pytest.mark.parametrize("train", [fit, training()], ids=["function", "Training"])
def test_the_model_the_plan_and_random_numbers_are_left_as_they_were(train):
    model = network()
    model[0].eval()
    plan = regularize(model, L1(1.0))
    before = {name: t.clone() for name, t in model.state_dict().items()}
    state = torch.get_rng_state()
    quiet(train, plan, [0.1, 0.01], FOLDS)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert not model[0].training
    assert model[2].training
    assert plan.attachments() == []
    regularize(model, L1(1.0)).attach(torch.optim.SGD(model.parameters()))  # nothing is in the way


def test_the_chosen_plan_trains_and_the_first_one_does_not_warn():
    model = network()
    plan = regularize(model, L1(1.0))
    found = quiet(fit, plan, [0.1, 0.01], FOLDS)
    chosen = found.plan("best")
    assert [r.regularizer for r in chosen.rows if r.regularizer] == [L1(found.best)] * 2
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    chosen.attach(optimizer)
    model(X).sum().backward()
    with warnings.catch_warnings(action="error"):
        optimizer.step()
    del chosen
    with pytest.raises(AppliedTwiceError):
        plan.attach(optimizer)


def test_the_naive_way_to_scale_a_plan_warns():
    """A second plan beside the first has that one warn that it is not applied: scaled() says it."""
    gc.collect()
    model = network()
    first = regularize(model, L1(1.0))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    regularize(model, L1(0.1)).attach(optimizer)
    model(X).sum().backward()
    with pytest.warns(NeverAppliedWarning):
        optimizer.step()
    assert first.rows


def test_a_scaled_plan():
    plan = regularize(network(), {kernels: L1(1.0) + L2(0.5), "2": GroupLasso(1.0), "0.bias": None})
    twice = plan.scaled(2)
    assert twice.penalty().item() == pytest.approx(2 * plan.penalty().item())
    assert [r.regularizer for r in twice.rows][::2] == [L1(2.0) + L2(1.0), GroupLasso(2.0)]
    assert [r.declared_at for r in twice.rows] == [r.declared_at for r in plan.rows]
    assert plan.scaled(0.0).penalty().item() == 0
    with pytest.raises(ValueError, match="factor=-1"):
        plan.scaled(-1)
    active = regularize(network(), L1(1.0), activities={of_type(nn.Tanh): L2(1.0)})
    assert [row.regularizer for row in active.scaled(2.0).activities] == [L2(2.0)]


def test_weights_are_those_of_every_sample_and_are_loaded():
    model = network()
    plan = regularize(model, L1(1.0))
    found = quiet(fit, plan, [0.1, 0.01], FOLDS)
    assert found.weights("0.weight").shape == (2, 5, 6)
    assert found.weights("0.bias").shape == (2, 5)
    found.load(0.01)
    assert torch.equal(model[0].weight, found.weights("0.weight")[1])
    found.load()
    assert found.one_se in (0.1, 0.01)
    with pytest.raises(PathError, match="There is no parameter 'weight'; expected one of"):
        found.weights("weight")
    for which in (0.5, "min", None):
        with pytest.raises(PathError, match="is no strength of the path"):
            found.load(which)


def test_running_statistics_belong_to_a_run():
    """Batch norm: what one run has averaged neither leaks into the next nor is lost by load()."""
    fitted = training(epochs=3)
    model = network(nn.BatchNorm1d(5))
    plan = regularize(model, L1(1.0))
    many = quiet(fitted, plan, [0.1, 0.001], 2, warm=False)
    one = quiet(fitted, plan, [0.001], 2)
    assert [r.loss for r in many.rows[3:]] == [r.loss for r in one.rows]
    assert float(model[1].running_mean.abs().sum()) == 0
    many.load(0.001)
    assert float(model[1].running_mean.abs().sum()) > 0
    loss = fitted.held_out(model, torch.arange(61)).loss
    assert loss == many.rows[-1].loss
    # The naive way loads parameters alone, and predicts something else.
    naive = network(nn.BatchNorm1d(5))
    for p, q in zip(naive.parameters(), model.parameters(), strict=True):
        p.data.copy_(q.data)
    assert fitted.held_out(naive, torch.arange(61)).loss != pytest.approx(loss, rel=1e-3)


def test_steps_of_schedules_are_not_counted_on():
    plan = regularize(network(), L1(1.0) * warmup(10))
    quiet(training(epochs=2), plan, [0.1], 2)
    assert plan.steps == 0


# --- the choice ---------------------------------------------------------------------------------


def of_losses(losses, **more):
    """A path with these held-out losses, by strength and fold."""
    rows = [
        FoldRow(strength, str(k), loss, math.nan, 3, 6, 1.0, "ok", "one by one", 0.0)
        for strength, row in losses.items()
        for k, loss in enumerate(row)
    ]
    return Path(ModuleLearner(fit, regularize(nn.Linear(6, 1), L1(1.0))), rows, {}, **more)


def test_the_best_and_the_simplest_within_one_standard_error():
    found = of_losses(
        {8.0: [9, 9, 9], 4.0: [2, 3, 4], 2.0: [1, 2, 4], 1.0: [1, 2, 3], 0.5: [3, 3, 3]}
    )
    assert found.best == 1.0
    error = statistics.stdev([1, 2, 3]) / 3**0.5
    summary = {each.strength: each for each in found.summary}
    assert summary[1.0].loss == 2
    assert summary[1.0].error == pytest.approx(error)
    assert summary[2.0].loss <= 2 + error < summary[4.0].loss
    assert found.one_se == 2.0
    assert str(found).count("one standard error") == 1
    assert [row.strength for row in found.rows if row.fold == "0"] == found.strengths


def test_a_single_fold_has_no_standard_error_and_chooses_the_best():
    found = of_losses({2.0: [3], 1.0: [1], 0.5: [1.5]})
    assert math.isnan(found.summary[1].error)
    assert found.chosen == {"best": 1.0, "one standard error": 1.0}
    assert "best, one standard error" in str(found)


def test_a_fold_that_is_not_finite_takes_its_strength_out_of_the_choice():
    found = of_losses({2.0: [3, 3], 1.0: [1, math.nan], 0.5: [2, 2]})
    assert found.best == 0.5
    assert found.chosen == {"best": 0.5, "one standard error": 0.5}
    nothing = of_losses({2.0: [math.inf, 3]})
    with pytest.raises(PathError, match="No strength has a finite loss in every fold"):
        _ = nothing.best
    assert nothing.chosen == {}
    with pytest.raises(PathError, match="There are no folds, so nothing tells"):
        _ = Path(found._learner, [], {}).one_se


def test_a_choice_at_an_end_says_that_the_path_may_go_on():
    said = "strength is the best: there may be better ones that are"
    assert f"weakest {said} smaller" in str(of_losses({2.0: [3, 3], 1.0: [1, 2]}))
    assert f"strongest {said} larger" in str(of_losses({2.0: [1, 1], 1.0: [3, 2]}))
    assert said not in str(of_losses({4.0: [3, 3], 2.0: [1, 1], 1.0: [3, 2]}))
    assert said not in str(of_losses({2.0: [1, 1]}))


def test_the_table_is_tidy():
    found = quiet(
        training(score=lambda o, t: (o - t).abs().mean()), regularize(network(), L1(1.0)), [0.1], 2
    )
    assert isinstance(found.table, pd.DataFrame)
    assert list(found.table.columns) == [f.name for f in dataclasses.fields(FoldRow)]
    assert list(found.table.fold) == ["0", "1", "all"]
    assert (found.table.score > 0).all()
    assert found.table.seconds.notna().all()


def test_the_table_without_pandas_is_a_list(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    found = of_losses({2.0: [3, 3]})
    assert found.table[0] == dataclasses.asdict(found.rows[0])


# --- the walk -----------------------------------------------------------------------------------


def recorded(calls):
    def recording(plan, train, valid):
        calls.append(
            (plan.rows[0].regularizer.strength, len(train), plan.model[0].weight.detach().clone())
        )
        return fit(plan, train, valid)

    return recording


def test_a_warm_run_begins_where_the_one_before_it_ended():
    model = network()
    start = model[0].weight.detach().clone()
    calls = []
    found = quiet(recorded(calls), regularize(model, L1(1.0)), [0.02, 0.01, 0.001], FOLDS)
    assert [strength for strength, _, _ in calls] == [0.02] * 3 + [0.01] * 3 + [0.001] * 3
    assert all(torch.equal(w, start) for _, _, w in calls[:3])
    ended = found.weights("0.weight")
    assert torch.equal(calls[5][2], ended[0])  # the third fold is that of every sample
    assert torch.equal(calls[8][2], ended[1])
    assert not torch.equal(calls[3][2], calls[4][2])
    calls.clear()
    quiet(recorded(calls), regularize(model, L1(1.0)), [0.02, 0.01], FOLDS, warm=False)
    assert all(torch.equal(w, start) for _, _, w in calls)


def test_a_layer_that_died_is_not_passed_on():
    """With all of a layer at zero nothing passes a gradient: warm starts would stay there."""
    model = network()
    start = model[0].weight.detach().clone()
    calls = []
    found = quiet(recorded(calls), regularize(model, L1(1.0)), [10.0, 0.001], FOLDS, refit=False)
    assert found.summary[0].nonzero == 0
    assert all(torch.equal(w, start) for _, _, w in calls)
    assert found.summary[1].nonzero > 0.5
    # The naive walk: from the dead weights, at a strength that leaves something, nothing wakes up.
    dead = network()
    for p in dead.parameters():
        p.data.zero_()
    fit(regularize(dead, L1(0.001)), torch.arange(40), torch.arange(40, 50))
    assert not dead[0].weight.any()


def test_warm_stacks_go_strength_by_strength():
    fitted = training(epochs=300, batch_size=None, optimizer=partial(torch.optim.SGD, lr=0.2))
    plan = regularize(nn.Linear(6, 1).double(), L1(1.0))
    warm = quiet(fitted, plan, [0.1, 0.05, 0.01], 3, warm=True)
    cold = quiet(fitted, plan, [0.1, 0.05, 0.01], 3)
    assert {row.how for row in warm.rows} == {"stacked"}
    torch.testing.assert_close(warm.weights("weight"), cold.weights("weight"), atol=1e-6, rtol=0)
    short = training(epochs=3, batch_size=None, optimizer=partial(torch.optim.SGD, lr=0.2))
    one = quiet(short, plan, [0.1, 0.05], 3, warm=True)
    other = quiet(short, plan, [0.1, 0.05], 3, warm=True, stacked=False)
    torch.testing.assert_close(one.weights("weight"), other.weights("weight"))
    assert not torch.allclose(
        one.weights("weight"), quiet(short, plan, [0.1, 0.05], 3).weights("weight")
    )


def test_patience_ends_the_path():
    losses = iter([3, 3, 1, 1, 2, 2, 2, 2, 0, 0])

    def listed(plan, train, valid):
        plan.attach(torch.optim.SGD(plan.model.parameters()))
        return next(losses)

    plan = regularize(network(), L1(1.0))
    found = quiet(listed, plan, [5, 4, 3, 2, 1], FOLDS, patience=2, refit=False)
    assert found.strengths == [5, 4, 3, 2]
    assert found.best == 4
    assert found.stopped
    assert "stopped early" in str(found)


def test_patience_with_stacks_and_a_results_file(tmp_path):
    fitted = training(optimizer=partial(torch.optim.SGD, lr=0.1), epochs=30)
    plan = regularize(network(), L1(1.0))
    grid = [1e-3, 3e-1, 1e0, 3e0, 1e1]
    settings = {"patience": 2, "saved": tmp_path / "path.sqlite"}
    found = quiet(fitted, plan, [1.0 / s for s in grid], 2, **settings)
    again = quiet(fitted, plan, [1.0 / s for s in grid], 2, **settings)
    assert again.rows == found.rows
    assert again.stopped == found.stopped


def test_jobs_give_what_one_gives():
    fitted = training(epochs=2)
    plan = regularize(network(nn.Tanh(), nn.Dropout(0.5)), L1(1.0))
    one = quiet(fitted, plan, [0.1, 0.01], 2, warm=False)
    many = quiet(fitted, plan, [0.1, 0.01], 2, warm=False, jobs=2)
    for ours, theirs in zip(many.rows, one.rows, strict=True):
        assert dataclasses.replace(ours, seconds=0.0) == dataclasses.replace(theirs, seconds=0.0)
    for name in one.penalized:
        assert torch.equal(many.weights(name), one.weights(name))


def test_jobs_in_threads_are_refused():
    """They share what torch draws at random."""
    plan = regularize(network(), L1(1.0))
    state = torch.get_rng_state()
    with joblib.parallel_config(backend="threading"), pytest.raises(PathError, match="in threads"):
        quiet(training(epochs=1), plan, [0.1, 0.01], 2, stacked=False, jobs=2)
    assert torch.equal(torch.get_rng_state(), state)


def test_paths_of_several_threads_run_one_after_another():
    """Side by side they would draw each other's random numbers, and put back each other's state."""

    def losses(plan):
        return [row.loss for row in quiet(training(epochs=3), plan, [0.1, 0.01], 2).rows]

    plans = [regularize(network(nn.Tanh(), nn.Dropout(0.5)), L1(1.0)) for _ in range(4)]
    alone, state = losses(plans.pop()), torch.get_rng_state()
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(losses, plans))
    assert together == [alone] * 3
    assert torch.equal(torch.get_rng_state(), state)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("how", ["function", "one by one", "stacked"])
def test_a_fit_that_raises_leaves_nothing_attached_though_its_traceback_is_kept(how):
    """A notebook keeps it: there the next path was refused, as two would apply the penalty."""
    calls = 0

    def loss(output, target):
        nonlocal calls
        calls += 1
        if calls == (2 if how == "one by one" else 20):
            raise Stopped
        return nn.functional.mse_loss(output, target)

    def fit(plan, train, valid):
        optimizer = torch.optim.Adam(plan.model.parameters())
        plan.attach(optimizer)
        raise Stopped

    plan = regularize(network(), L1(1.0))
    fitted = fit if how == "function" else training(loss=loss, epochs=9)
    folds = [(range(40), range(40, 61))]
    with pytest.raises(Stopped) as kept:
        quiet(fitted, plan, [0.1], folds, stacked=None if how == "stacked" else False)
    again = quiet(training(epochs=1), plan, [0.1], folds)
    assert again.rows
    plan.attach(torch.optim.SGD(plan.model.parameters())).detach()
    assert kept.tb


def test_no_bar_is_shown_where_nobody_looks(capsys):
    path(training(epochs=1), regularize(network(), L1(1.0)), [0.1], 2)
    assert capsys.readouterr() == ("", "")


def test_a_bar_is_shown(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    path(training(epochs=1), regularize(network(), L1(1.0)), [0.1], 2)
    captured = capsys.readouterr()
    assert "path" in captured.err
    assert "λ 0.1 loss" in captured.err
    assert "zeros" in captured.err
    assert captured.out == ""


def test_optimizers_that_call_their_closure_several_times():
    fitted = training(optimizer=torch.optim.LBFGS, mode="gradient", batch_size=None, epochs=5)
    found = quiet(fitted, regularize(network(), L2(1.0)), [0.1, 0.001], 2)
    assert "LBFGS" in found.reason
    assert found.summary[1].loss < found.summary[0].loss


def test_scores_and_mappings():
    def scored(plan, train, valid):
        return {"loss": fit(plan, train, valid), "score": 0.5}

    found = quiet(scored, regularize(network(), L1(1.0)), [0.1], FOLDS)
    assert [row.score for row in found.rows] == [0.5] * 3


# --- what it refuses ----------------------------------------------------------------------------


def test_a_fit_that_ignores_the_plan_is_told_by_an_audit():
    model = network()
    outer = regularize(model, L1(1.0))

    def naive(_, train, valid):
        """Attaches the plan of the outer scope, whose strength never changes."""
        outer.attach(optimizer := torch.optim.SGD(model.parameters(), lr=0.1))
        del optimizer
        return 0.0

    def none(plan, train, valid):
        return 0.0

    for ignoring in (naive, none):
        with pytest.raises(AuditError, match=r"(?s)0.weight.*never applied.*the plan that it is"):
            quiet(ignoring, outer, [0.1, 0.01], FOLDS)

    def in_the_loss(plan, train, valid):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        (model(X[train]).square().mean() + plan.penalty()).backward()
        optimizer.step()
        return 0.0

    assert len(quiet(in_the_loss, outer, [0.1, 0.01], FOLDS).rows) == 6


def test_an_attached_plan_is_refused():
    model = network()
    plan = regularize(model, L1(1.0))
    optimizer = torch.optim.SGD(model.parameters())
    attachment = plan.attach(optimizer)
    for train in (fit, training()):
        with pytest.raises(AppliedTwiceError, match=r"path.*Call detach\(\) on it first"):
            quiet(train, plan, [0.1], FOLDS)
    attachment.detach()
    assert len(quiet(training(epochs=1), plan, [0.1], FOLDS).rows) == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fit": 3}, "Fit is 3; pass a Training"),
        ({"plan": 3}, "Plan is 3; pass what penalize.torch.regularize returned"),
        ({"strengths": "all"}, "strengths='all'; expected \"auto\""),
        ({"strengths": []}, r"strengths=\[\] has none; pass a list: a generator gives"),
        ({"strengths": (s for s in ())}, "strengths=<generator .* has none; pass a list"),
        ({"strengths": itertools.count(1)}, "Strengths has too many; expected at most 10,000"),
        ({"strengths": 10_001}, "strengths=10001; expected a whole number from 1 to 10000"),
        ({"strengths": [0.1, 0.1]}, "each of them once"),
        ({"strengths": [0.1, -1]}, "expected a finite number"),
        ({"strengths": [math.nan]}, "expected a finite number"),
        ({"strengths": 0.1}, 'expected "auto", a number of them, or a list'),
        ({"strengths": 0}, "strengths=0; expected a whole number from 1 to 10000"),
        ({"patience": 0}, "patience=0; expected a whole number"),
        ({"jobs": 0}, "jobs=0; expected a whole number other than 0"),
        ({"jobs": 1.5}, "jobs=1.5"),
        ({"seed": "a"}, "seed='a'; expected a whole number from 0 to 18446744073709551615"),
        ({"seed": None}, "seed=None"),
        ({"seed": -1}, "seed=-1"),
        ({"folds": 1}, "folds=1 for 61 samples; expected a number from 2"),
        ({"folds": 62}, "folds=62 for 61 samples"),
        ({"folds": "five"}, "folds='five'; expected a number of folds"),
        ({"folds": []}, "Folds is empty"),
        ({"folds": [([0, 1], [])]}, "Fold 0 holds out no samples; give each fold some of both"),
        ({"folds": [([0], [1]), ([], [1])]}, "Fold 1 trains on no samples"),
        ({"folds": [([0, 1], [1])]}, "Fold 0 trains on samples that it holds out"),
        ({"folds": [([0, 61], [1])]}, "Fold 0 trains on samples from 0 to 61; they are numbered"),
        ({"folds": [([-1, 0], [1])]}, "samples from -1 to 0"),
        ({"folds": [([0.5], [1])]}, "float64 numbers"),
        ({"folds": [([0, 1],)]}, "Fold 0 is"),
        ({"folds": [5]}, "Fold 0 is 5"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_trained(changes, said, tmp_path):
    settings = {"fit": training(), "plan": regularize(network(), L1(1.0)), **changes}
    with pytest.raises(PathError, match=said):
        quiet(**settings, saved=tmp_path / "path.sqlite")
    assert not (tmp_path / "path.sqlite").exists()


def test_a_function_has_no_loss_at_zero_and_no_samples():
    plan = regularize(network(), L1(1.0))
    with pytest.raises(PathError, match="the loss of the data is not known"):
        quiet(fit, plan, "auto", FOLDS)
    with pytest.raises(PathError, match="how many samples there are is not known"):
        quiet(fit, plan, [0.1], 5)
    with pytest.raises(PathError, match="The plan penalizes nothing"):
        quiet(fit, regularize(network(), {kernels: None}), [0.1], FOLDS)


@pytest.mark.parametrize("returned", [None, "low", {"los": 1.0}, torch.zeros(2), {"loss": None}])
def test_a_fit_that_returns_no_loss(returned):
    def bad(plan, train, valid):
        plan.attach(torch.optim.SGD(plan.model.parameters()))
        return returned

    with pytest.raises(PathError, match=r"Fit returned .*return the held-out loss as a number"):
        quiet(bad, regularize(network(), L1(1.0)), [0.1], FOLDS)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"x": [1.0]}, r"x\[0\] that is no tensor, but a float"),
        ({"x": X[:3]}, r"an x of shape \(3, 6\) and a y of shape \(61, 1\)"),
        ({"x": X[:0], "y": Y[:0]}, "as many samples in each"),
        ({"loss": 0.1}, "loss=0.1; expected a function"),
        ({"optimizer": torch.optim.SGD(network().parameters())}, "expected a function"),
        ({"epochs": 0}, "epochs=0; expected a whole number >= 1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"epochs": 1.5}, "epochs=1.5"),
        ({"epochs": True}, "epochs=True"),
        ({"seed": 0.5}, "seed=0.5; expected a whole number from 0 to"),
        ({"tolerance": -1e-3}, "tolerance=-0.001; expected a finite number >= 0"),
        ({"tolerance": math.nan}, "tolerance=nan"),
        ({"tolerance": "small"}, "tolerance='small'"),
    ],
)
def test_a_training_of_something_else(changes, said):
    with pytest.raises(PathError, match=f"(?s)Training got .*{said}"):
        training(**changes)


def test_a_run_one_by_one_that_is_not_finite_is_recorded_and_the_next_begins_anew():
    fitted = training(optimizer=partial(torch.optim.SGD, lr=0.02), mode="gradient", epochs=30)
    plan = regularize(network(), L2(1.0))
    found = quiet(fitted, plan, [1e6, 0.01], 2, stacked=False)
    assert [row.status for row in found.rows] == ["weights not finite"] * 3 + ["ok"] * 3
    assert found.best == 0.01
    alone = quiet(fitted, plan, [0.01], 2, stacked=False)
    assert [r.loss for r in found.rows[3:]] == [r.loss for r in alone.rows]


# --- folds --------------------------------------------------------------------------------------


def test_folds_at_random_hold_each_sample_out_once():
    folds = folds_of(4, 61, 0, refit=True)
    assert [fold.name for fold in folds] == ["0", "1", "2", "3", "all"]
    held = np.concatenate([fold.valid for fold in folds if fold.held_out])
    assert sorted(held.tolist()) == list(range(61))
    assert {len(fold.train) + len(fold.valid) for fold in folds[:-1]} == {61}
    assert folds[-1].train.tolist() == list(range(61))
    other = folds_of(4, 61, 1, refit=False)
    assert len(other) == 4
    assert other[0].valid.tolist() != folds[0].valid.tolist()


def test_splitters_of_scikit_learn_are_folds():
    folds = folds_of(KFold(3).split(X), None, 0, refit=True)
    assert [len(fold.valid) for fold in folds] == [21, 20, 20, 61]


def test_a_training_may_have_targets_of_any_kind():
    assert Training(x=X, y=Y[:, 0], loss=nn.MSELoss(), optimizer=torch.optim.SGD).samples == 61
