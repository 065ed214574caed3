"""Paths of convex problems, which scikit-learn knows.

Units: scikit-learn minimises ‖y − Xw‖²/(2n) + α·r‖w‖₁ + α(1−r)/2·‖w‖². With half the mean squared
error as the loss that is ``L1L2(r, (1 − r)/2)`` at the strength α; with ``nn.MSELoss()`` strengths
are twice as large.
"""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, enet_path, lasso_path
from sklearn.model_selection import KFold, train_test_split
from torch import nn

from penalize import L1, L1L2, GroupLasso
from penalize.torch import Training, path, regularize, strength_max

X, Y = load_diabetes(return_X_y=True)
X = (X - X.mean(0)) / X.std(0)
Y = Y / Y.std()  # with its mean: the bias has to be fitted
N = len(X)


def half_mse(output, target):
    return ((output - target) ** 2).mean() / 2


def linear(outputs=1):
    torch.manual_seed(0)
    return nn.Linear(X.shape[1], outputs).double()


def training(**changes):
    settings = {
        "x": torch.tensor(X),
        "y": torch.tensor(Y)[:, None],
        "loss": half_mse,
        "optimizer": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        "epochs": 4000,
        "tolerance": 1e-7,
    }
    return Training(**{**settings, **changes})


def test_strength_max_is_the_largest_alpha_of_scikit_learn():
    alphas, _, _ = lasso_path(X, Y - Y.mean(), alphas=3)
    model = linear()
    plan = regularize(model, L1(1.0))
    before = [p.detach().clone() for p in model.parameters()]
    fit = training()
    found = strength_max(lambda: fit.data_loss(model), plan)
    assert found == pytest.approx(alphas[0], rel=1e-9)
    x, y = fit.x, fit.y
    doubled = strength_max(lambda: nn.MSELoss()(model(x), y), plan)
    assert doubled == pytest.approx(2 * alphas[0], rel=1e-9)
    for p, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, old)
        assert p.grad is None


@pytest.mark.parametrize("ratio", [1.0, 0.5], ids=["lasso", "elastic net"])
def test_the_path_is_that_of_scikit_learn(ratio):
    model = linear()
    plan = regularize(model, L1(1.0) if ratio == 1 else L1L2(ratio, (1 - ratio) / 2))
    found = path(training(), plan, 14, folds=None)
    assert found.reason == ""  # stacked
    alphas = np.array(found.strengths)
    of_lasso = {"alphas": alphas, "tol": 1e-12, "max_iter": 100_000}
    if ratio == 1:
        _, theirs, _ = lasso_path(X, Y - Y.mean(), **of_lasso)
    else:
        _largest, theirs, _ = enet_path(X, Y - Y.mean(), l1_ratio=ratio, **of_lasso)
        first, _, _ = enet_path(X, Y - Y.mean(), l1_ratio=ratio, alphas=2)
        assert alphas[0] == pytest.approx(first[0], rel=2e-5)
    ours = found.weights("weight")[:, 0].numpy()
    np.testing.assert_allclose(ours, theirs.T, atol=1e-4)
    np.testing.assert_allclose(found.weights("bias")[:, 0], Y.mean(), atol=1e-6)

    def entries(path):
        """Where each variable enters: the first strength at which it is not zero."""
        return [int(np.argmax(np.abs(w) > 1e-6)) for w in path.T]

    assert entries(ours) == entries(theirs.T)
    assert len(set(entries(ours))) > 4  # the order says something


def test_a_path_of_groups_satisfies_its_optimality_conditions():
    groups = [[0, 1], [2, 3, 9], [4, 5, 6, 7], [8]]
    model = linear()
    plan = regularize(model, GroupLasso(1.0, groups=groups))
    found = path(training(), plan, 8, folds=None)
    left = []
    for strength, w, b in zip(
        found.strengths,
        found.weights("weight")[:, 0].numpy(),
        found.weights("bias")[:, 0].numpy(),
        strict=True,
    ):
        gradient = X.T @ (X @ w + b - Y) / N
        left.append(0)
        for group in groups:
            limit = strength * len(group) ** 0.5
            length = np.linalg.norm(w[group])
            if length < 1e-6:
                assert np.linalg.norm(gradient[group]) <= limit * (1 + 1e-6)
            else:
                np.testing.assert_allclose(gradient[group], -limit * w[group] / length, atol=2e-5)
                left[-1] += 1
    assert left[0] == 0
    assert not found.weights("weight")[0].any()  # exactly
    assert left[-1] == len(groups)
    assert left == sorted(left)


def test_the_choice_on_breast_cancer_is_as_good_as_that_of_scikit_learn():
    x, y = load_breast_cancer(return_X_y=True)
    x = (x - x.mean(0)) / x.std(0)
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.3, random_state=0, stratify=y)
    folds = list(KFold(5, shuffle=True, random_state=0).split(x))
    torch.manual_seed(0)
    model = nn.Linear(30, 1).double()
    fit = Training(
        x=torch.tensor(x),
        y=torch.tensor(y, dtype=torch.float64)[:, None],
        loss=nn.functional.binary_cross_entropy_with_logits,
        optimizer=partial(torch.optim.SGD, lr=0.25),
        epochs=1200,
        tolerance=1e-6,
    )
    found = path(fit, regularize(model, L1(1.0)), 12, folds=folds)
    assert found.reason == ""
    # C·Σ loss + ‖w‖₁ is mean loss + 1/(C·n)·‖w‖₁.
    cs = 1 / (np.array(found.strengths) * len(x) * 0.8)
    theirs = LogisticRegressionCV(
        Cs=cs,
        cv=folds,
        l1_ratios=(1.0,),
        solver="saga",
        scoring="neg_log_loss",
        max_iter=20_000,
        tol=1e-3,
        use_legacy_attributes=False,
    ).fit(x, y)

    def losses(probability):
        return -np.log(np.where(y_test == 1, probability, 1 - probability))

    def at(c):
        kind = LogisticRegression(C=c, l1_ratio=1.0, solver="saga", max_iter=20_000, tol=1e-3)
        return losses(kind.fit(x, y).predict_proba(x_test)[:, 1])

    ours = at(1 / (found.best * len(x)))
    difference = ours - at(theirs.C_ if np.isscalar(theirs.C_) else theirs.C_[0])
    noise = ours.std(ddof=1) / len(ours) ** 0.5
    assert abs(difference.mean()) <= noise
    # And what the path trained there is that model.
    found.load("best")
    with torch.no_grad():
        probability = torch.sigmoid(model(torch.tensor(x_test)))[:, 0].numpy()
    np.testing.assert_allclose(losses(probability).mean(), ours.mean(), atol=0.01)


def test_leaving_strengths_of_the_loss_in_other_units_gives_another_path():
    """What a reader of two tables must not compare: the naive reading of α is off by two."""
    model = linear()
    fit = training(loss=nn.MSELoss(), optimizer=partial(torch.optim.SGD, lr=0.12))
    found = path(fit, regularize(model, L1(1.0)), [0.1], folds=None, progress=False)
    _, same, _ = lasso_path(X, Y - Y.mean(), alphas=[0.1], tol=1e-12)
    _, half, _ = lasso_path(X, Y - Y.mean(), alphas=[0.05], tol=1e-12)
    ours = found.weights("weight")[0, 0].numpy()
    np.testing.assert_allclose(ours, half[:, 0], atol=1e-4)
    assert np.abs(ours - same[:, 0]).max() > 0.01
