"""Runs side by side give what runs one by one give; and what cannot be stacked says why."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from wing_torch.selection.problems import X, Y, network, training

from penalize import (
    L1,
    L1L2,
    L2,
    MCP,
    GroupLasso,
    Huber,
    NuclearNorm,
    PathError,
    SparseGroupLasso,
    biases,
    kernels,
    toward,
    warmup,
)
from penalize.torch import path, regularize
from penalize.torch.selection.stacking import BY_ELEMENT, Stacked, at_once

STRENGTHS = [0.3, 0.02, 0.001, 0.0]
FAST = {"folds": 3, "progress": False}


def both(model, rules, fit, strengths=STRENGTHS, **more):
    """The same path stacked, and one by one from the same start."""
    settings = {**FAST, **more}
    plan = regularize(model, rules)
    stacked = path(fit, plan, strengths, stacked=True, **settings)
    alone = path(fit, plan, strengths, stacked=False, warm=False, **settings)
    assert {row.how for row in stacked.rows} == {"stacked"}
    assert {row.how for row in alone.rows} == {"one by one"}
    return stacked, alone


def assert_same(stacked, alone, atol=1e-9):
    assert len(stacked.rows) == len(alone.rows) > 0
    for ours, theirs in zip(stacked.rows, alone.rows, strict=True):
        assert (ours.strength, ours.fold) == (theirs.strength, theirs.fold)
        assert ours.loss == pytest.approx(theirs.loss, abs=atol)
        assert ours.norm == pytest.approx(theirs.norm, abs=atol)
        assert (ours.nonzero, ours.weights) == (theirs.nonzero, theirs.weights)
    for name in stacked.penalized:
        torch.testing.assert_close(stacked.weights(name), alone.weights(name), atol=atol, rtol=0)


@pytest.mark.parametrize("name", sorted(BY_ELEMENT))
def test_under_every_optimizer_that_treats_elements_one_by_one(name):
    kind = getattr(torch.optim, name)
    mode = "gradient" if name in ("Adadelta", "Rprop", "ASGD") else "proximal"
    fit = training(optimizer=partial(kind, lr=0.02), mode=mode)
    assert_same(*both(network(), L1(1.0), fit))


@pytest.mark.parametrize(
    "rules",
    [
        L1L2(1.0, 0.5),
        GroupLasso(1.0, groups="outputs"),
        GroupLasso(0.5, groups="inputs") + L2(1.0),
        SparseGroupLasso(1.0, 0.3),
        {kernels: L2(1.0), "0": MCP(1.0), biases: L1(0.1)},
        {kernels: Huber(1.0, delta=0.05), "2": None},
        toward("start", L1(1.0)),
    ],
    ids=repr,
)
@pytest.mark.parametrize("mode", ["proximal", "gradient", "decoupled"])
def test_with_every_kind_of_penalty_in_every_mode(rules, mode):
    assert_same(*both(network(), rules, training(mode=mode)))


def test_with_a_nuclear_norm_under_one_step():
    fit = training(optimizer=partial(torch.optim.SGD, lr=0.05))
    assert_same(*both(network(), NuclearNorm(1.0), fit, [0.5, 0.05]), atol=1e-8)


@pytest.mark.parametrize("folds", [3, 4, 7, None])
def test_folds_that_differ_in_size(folds):
    """61 samples: folds of unequal sizes, and another number of batches for all of them."""
    assert_same(*both(network(), L1(1.0), training(), folds=folds))


def test_in_float32_to_1e_5():
    model = network().float()
    fit = training(x=X.float(), y=Y.float(), epochs=10)
    assert_same(*both(model, L1(1.0), fit), atol=1e-5)


def test_a_loss_that_is_reduced_by_classes_and_a_tied_weight():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(6, 6)
            self.b = nn.Linear(6, 6)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(torch.tanh(self.a(x)))

    torch.manual_seed(0)
    fit = training(y=torch.arange(61) % 6, loss=nn.CrossEntropyLoss())
    assert_same(*both(Tied().double(), L1(1.0), fit))


def test_frozen_parameters_stay_as_they_are():
    model = network()
    model[0].weight.requires_grad_(False)
    stacked, alone = both(model, L1(1.0), training())
    assert_same(stacked, alone)
    assert stacked.penalized == ["2.weight"]


def test_training_ends_when_nothing_moves():
    """Each alone may end earlier than the stack: both have arrived."""
    fit = training(optimizer=partial(torch.optim.SGD, lr=0.2), epochs=5000, batch_size=None)
    fit = training(**{**vars(fit), "tolerance": 1e-9})
    assert_same(*both(nn.Linear(6, 1).double(), L1(1.0), fit, folds=None), atol=1e-6)


def test_a_run_that_is_not_finite_leaves_the_others_alone():
    fit = training(optimizer=partial(torch.optim.SGD, lr=0.02), mode="gradient", epochs=30)
    found = path(fit, regularize(network(), L2(1.0)), [1e6, 0.01], stacked=True, **FAST)
    bad = [row for row in found.rows if row.strength == 1e6]
    assert all(row.status == "weights not finite" for row in bad)
    assert all(math.isnan(row.loss) for row in bad)
    good = path(fit, regularize(network(), L2(1.0)), [0.01], stacked=True, **FAST)
    assert [r.loss for r in found.rows if r.strength == 0.01] == [r.loss for r in good.rows]
    assert found.best == 0.01
    assert "4 of 8 runs were not finite" in str(found)


@pytest.mark.parametrize(
    ("model", "rules", "fit", "reason"),
    [
        (network, L1(1.0), lambda p, t, v: 0.0, "fit is a function"),
        (network, L1(1.0), training(optimizer=torch.optim.Adafactor, mode="gradient"), "Adafactor"),
        (
            network,
            L1(1.0),
            training(optimizer=torch.optim.LBFGS, mode="gradient"),
            "LBFGS does not",
        ),
        (lambda: network(nn.BatchNorm1d(5)), L1(1.0), training(), "'1' keeps running statistics"),
        (lambda: network(nn.Dropout(0.5)), L1(1.0), training(), "'1' draws at random"),
        (network, L1(1.0) * warmup(10), training(), "a strength follows a schedule"),
        (
            lambda: network(nn.utils.parametrizations.weight_norm(nn.Linear(5, 5).double())),
            L2(1.0),
            training(mode="gradient"),
            "computed from other parameters",
        ),
        (network, L1(1.0), training(loss=lambda o, t: (o - t).square().sum()), "no mean over"),
        (
            lambda: network()[:2].append(nn.Linear(5, 3)).double(),
            L1(1.0),
            # Weighted by class, and a class that only one of the last batches has.
            training(
                y=(torch.arange(61) > 59).long(),
                loss=nn.CrossEntropyLoss(torch.tensor([1.0, 5.0, 1.0]).double()),
            ),
            "no mean over",
        ),
        (
            network,
            L1(1.0),
            training(loss=lambda o, t: ((o - o.mean()) ** 2).mean()),
            "no mean over",
        ),
    ],
)
def test_what_cannot_be_stacked_says_why_and_runs_one_by_one(model, rules, fit, reason):
    plan = regularize(model(), rules)
    with pytest.raises(PathError, match=f"The runs cannot be stacked: .*{reason}"):
        path(fit, plan, [0.1], stacked=True, **FAST) if callable(getattr(fit, "loss", None)) else (
            path(fit, plan, [0.1], [([0, 1], [2])], stacked=True, progress=False)
        )
    if hasattr(fit, "loss"):
        found = path(training(**{**vars(fit), "epochs": 1}), plan, [0.1], **FAST)
        assert reason in found.reason
        assert reason in str(found)
        assert {row.how for row in found.rows} == {"one by one"}


def test_what_vmap_cannot_do_is_a_reason():
    class Branch(nn.Linear):
        def forward(self, x):
            return super().forward(x) if float(self.weight.sum()) > -1e9 else x

    found = path(training(), regularize(Branch(6, 1).double(), L1(1.0)), [0.1], **FAST)
    assert found.reason.startswith("torch.func cannot vectorize it: ")


def test_large_models_train_one_by_one(monkeypatch):
    monkeypatch.setattr("penalize.torch.selection.stacking.LARGEST", 30)
    found = path(training(), regularize(network(), L1(1.0)), [0.1], **FAST)
    assert found.reason == "the model has 41 weights, and more than 30 are trained one by one"


def test_a_stack_is_cut_where_memory_ends(monkeypatch):
    whole = path(training(), regularize(network(), L1(1.0)), STRENGTHS, **FAST)
    monkeypatch.setattr("penalize.torch.selection.stacking.MEMORY", 41 * 4)
    cut = path(training(), regularize(network(), L1(1.0)), STRENGTHS, **FAST)
    assert_same(cut, whole)


@pytest.mark.parametrize(("batch_size", "strengths"), [(61, 1), (16, 3), (1, 4)])
def test_a_stack_is_cut_by_what_a_batch_takes_too(batch_size, strengths, monkeypatch):
    """A batch of n gives 5n + 5n + n numbers in the layers, and n for the whole; there are 41
    weights.
    """
    size = max(41, 12 * batch_size)
    monkeypatch.setattr("penalize.torch.selection.stacking.MEMORY", 4 * size * strengths)
    plan = regularize(network(), L1(1.0))
    assert at_once(training(batch_size=batch_size), plan, 4) == strengths
    assert at_once(training(batch_size=2 * batch_size), plan, 4) <= strengths


def test_the_stacked_penalty_is_the_sum_over_its_slices():
    w = torch.randn(3, 4, 2, dtype=torch.float64)
    factors = (0.5, 0.0, 2.0)
    for r in (L1(1.0), GroupLasso(1.0, groups=0) + L2(0.5), MCP(1.0)):
        stacked = Stacked(r, factors)
        each = [f * r for f in factors]
        total = sum(float(a(b)) for a, b in zip(each, w, strict=True))
        assert float(stacked(w)) == pytest.approx(total)
        wanted = torch.stack([a.gradient(b) for a, b in zip(each, w, strict=True)])
        torch.testing.assert_close(stacked.gradient(w), wanted)
        wanted = torch.stack([a.prox(b, 0.1) for a, b in zip(each, w, strict=True)])
        torch.testing.assert_close(stacked.prox(w, 0.1), wanted)
        assert stacked.weak_convexity == max(r.weak_convexity or 0.0 for r in each)
