"""Strengths in the units of other libraries: each row that can run here is held to its library."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from sklearn.linear_model import (
    ElasticNet,
    ElasticNetCV,
    HuberRegressor,
    Lasso,
    LassoCV,
    LinearRegression,
    LogisticRegression,
    MultiTaskLasso,
    PoissonRegressor,
    QuantileRegressor,
    Ridge,
    RidgeClassifier,
    RidgeCV,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.neural_network import MLPRegressor
from sklearn.svm import LinearSVC, LinearSVR
from torch import nn

from penalize import (
    L1,
    L1L2,
    L2,
    MCP,
    GroupLasso,
    NuclearNorm,
    Orthogonal,
    Regularizer,
    StrengthError,
    UnitsError,
    biases,
    everything,
    norms,
    units,
)
from penalize.torch import regularize
from penalize.units import convert, find, invert, names, read
from penalize.units.table import TABLE

N = 40
_rng = np.random.default_rng(0)
X = _rng.normal(size=(N, 4)) * [1.0, 1.5, 0.7, 1.2] + [0.3, -0.2, 0.5, 0.0]
TRUTH = np.array([1.0, -0.6, 0.0, 0.3])
Y = X @ TRUTH + 0.5 + 0.5 * _rng.normal(size=N)
LABELS = (0.5 + Y > 1.0).astype(float)
COUNTS = _rng.poisson(np.exp(0.3 * X @ TRUTH)).astype(float)
TASKS = np.stack([Y, X @ TRUTH[::-1] + 0.3 * _rng.normal(size=N)], axis=1)


# --- a fit of our own: any smooth loss, any prox ------------------------------------------------


def squared(scores: Any, y: Any) -> Any:
    return 2 * (scores - y) / y.size


def log_loss(scores: Any, y: Any) -> Any:
    return (expit(scores) - y) / len(y)


def poisson(scores: Any, y: Any) -> Any:
    return (np.exp(scores) - y) / len(y)


def squared_hinge(scores: Any, y: Any) -> Any:
    signs = 2 * y - 1
    return -2 * signs * np.maximum(0, 1 - signs * scores) / len(y)


def fitted(found: Any, slope: Callable[..., Any], y: Any, step: float = 0.12) -> tuple[Any, Any]:
    """Weights and intercept at which the mean loss and the penalty are least (FISTA)."""
    rules = found if isinstance(found, dict) else {}
    regularizer = rules.get(everything, found)
    weights, intercept = np.zeros((4, *y.shape[1:])), np.zeros((1, *y.shape[1:]))
    ahead = weights, intercept
    for k in range(400):
        before = weights, intercept
        each = slope(X @ ahead[0] + ahead[1], y)
        weights = regularizer.prox(ahead[0] - step * X.T @ each, step)
        intercept = ahead[1] - step * each.sum(axis=0, keepdims=True)
        if rules:
            intercept = regularizer.prox(intercept, step)
        pace = k / (k + 3) if k % 40 else 0.0  # it begins anew, so that it does not swing
        ahead = (
            weights + pace * (weights - before[0]),
            intercept + pace * (intercept - before[1]),
        )
    return weights, intercept


def are_close(found: Any, estimator: Any, slope: Any, y: Any) -> bool:
    theirs = np.concatenate([estimator.coef_.T.ravel(), np.ravel(estimator.intercept_)])
    weights, intercept = fitted(found, slope, y)
    ours = np.concatenate([weights.ravel(), intercept.ravel()])
    return bool(np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max())


def logistic(**settings: Any) -> Any:
    return LogisticRegression(tol=1e-12, max_iter=100_000, **settings)


TIGHT = {"tol": 1e-12, "max_iter": 100_000}
ROOMY = {"tol": 1e-10, "max_iter": 1_000_000}

FITS: dict[str, tuple[Any, Any, Any, Any, Sequence[Any]]] = {
    # of a name: the estimator, ours, the slope of the loss, y, and what one would guess
    "Ridge": (
        Ridge(7.0),
        convert("sklearn.Ridge", alpha=7.0, n=N),
        squared,
        Y,
        [L2(7.0), L2(3.5 / N), L2.from_weight_decay(7.0 / N)],
    ),
    "RidgeClassifier": (
        RidgeClassifier(7.0),
        convert("sklearn.RidgeClassifier", alpha=7.0, n=N),
        squared,
        2 * LABELS - 1,
        [L2(3.5 / N)],
    ),
    "Ridge of two outputs": (
        Ridge(7.0),
        convert("sklearn.Ridge", alpha=7.0, n=2 * N),
        squared,
        TASKS,
        [L2.from_ridge(7.0, N)],
    ),
    "Lasso": (
        Lasso(0.1, **TIGHT),
        convert("sklearn.Lasso", alpha=0.1),
        squared,
        Y,
        [L1(0.1), L1(0.05), L1(0.1 / N)],
    ),
    "ElasticNet": (
        ElasticNet(0.2, l1_ratio=0.3, **TIGHT),
        convert("sklearn.ElasticNet", alpha=0.2, l1_ratio=0.3),
        squared,
        Y,
        [L1L2(0.06, 0.07), L1L2(0.06, 0.14), L1L2(0.12, 0.28)],
    ),
    "MultiTaskLasso": (
        MultiTaskLasso(0.2, **TIGHT),
        convert("sklearn.MultiTaskLasso", alpha=0.2, outputs=2, groups=0),
        squared,
        TASKS,
        [GroupLasso(0.4, 0, size_weighted=False), GroupLasso(0.2, 0)],
    ),
    "LogisticRegression": (
        logistic(C=0.3),
        convert("sklearn.LogisticRegression", C=0.3, n=N),
        log_loss,
        LABELS,
        [L2(1 / 0.3), L2(1 / (0.3 * N))],
    ),
    "LogisticRegression, saga": (
        logistic(C=0.3, l1_ratio=0.4, solver="saga"),
        convert("sklearn.LogisticRegression", C=0.3, n=N, l1_ratio=0.4, solver="saga"),
        log_loss,
        LABELS,
        [L1L2(0.4 / (0.3 * N), 0.6 / (0.3 * N))],
    ),
    "LogisticRegression, liblinear": (
        LogisticRegression(C=0.3, solver="liblinear", **ROOMY),
        convert("sklearn.LogisticRegression", C=0.3, n=N, solver="liblinear"),
        log_loss,
        LABELS,
        [L2.from_C(0.3, N)],  # on the weights alone
    ),
    "PoissonRegressor": (
        PoissonRegressor(alpha=0.3, **TIGHT),
        convert("sklearn.PoissonRegressor", alpha=0.3),
        poisson,
        COUNTS,
        [L2(0.3), L2(0.15 / N)],
    ),
    "LinearSVC": (
        LinearSVC(C=0.1, **ROOMY),
        convert("sklearn.LinearSVC", C=0.1, n=N),
        squared_hinge,
        LABELS,
        [L2.from_C(0.1, N)],
    ),
    "LinearSVR": (
        LinearSVR(C=0.1, loss="squared_epsilon_insensitive", dual=True, **ROOMY),
        convert("sklearn.LinearSVR", C=0.1, n=N, loss="squared_epsilon_insensitive"),
        squared,
        Y,
        [L2.from_C(0.1, N)],
    ),
}


@pytest.mark.parametrize("name", FITS)
def test_an_estimator_of_scikit_learn_has_the_same_solution(name: str) -> None:
    estimator, found, slope, y, guesses = FITS[name]
    estimator.fit(X, y)
    assert are_close(found, estimator, slope, y)
    for guess in guesses:
        assert not are_close(guess, estimator, slope, y), guess


def test_three_classes() -> None:
    labels = np.digitize(Y, [0.0, 1.0])
    theirs = logistic(C=0.3).fit(X, labels)
    found = read(theirs, n=N)

    def slope(scores: Any, y: Any) -> Any:
        return (softmax(scores, axis=1) - y) / len(y)

    weights, _ = fitted(found, slope, np.eye(3)[labels])
    np.testing.assert_allclose(weights.T, theirs.coef_, rtol=1e-4, atol=1e-5)
    guess, _ = fitted(L2(1 / (0.3 * N)), slope, np.eye(3)[labels])
    assert not np.allclose(guess.T, theirs.coef_, rtol=0.05)


def test_huber_beside_its_own_scale() -> None:
    theirs = HuberRegressor(alpha=5.0, tol=1e-9, max_iter=10_000).fit(X, Y)

    def slope(scores: Any, y: Any) -> Any:
        within = np.clip((scores - y) / theirs.scale_, -theirs.epsilon, theirs.epsilon)
        return 2 * within / N

    for_each = convert("sklearn.HuberRegressor", alpha=5.0, n=N)
    weights, _ = fitted(for_each, slope, Y, step=0.05)
    np.testing.assert_allclose(weights, theirs.coef_, rtol=2e-3)
    guess, _ = fitted(L2(5.0), slope, Y, step=0.05)
    assert not np.allclose(guess, theirs.coef_, rtol=0.1)


STOCHASTIC = {"max_iter": 2000, "tol": None, "random_state": 0, "eta0": 0.02, "power_t": 0.6}


@pytest.mark.parametrize(
    ("estimator", "name", "settings", "guess"),
    [
        (SGDRegressor(alpha=0.5, **STOCHASTIC), "SGDRegressor", {"alpha": 0.5}, L2(0.25)),
        (
            SGDRegressor(alpha=0.2, penalty="l1", **STOCHASTIC),
            "SGDRegressor",
            {"alpha": 0.2, "penalty": "l1"},
            L1(0.2),
        ),
        (
            SGDRegressor(alpha=0.4, penalty="elasticnet", l1_ratio=0.4, **STOCHASTIC),
            "SGDRegressor",
            {"alpha": 0.4, "penalty": "elasticnet", "l1_ratio": 0.4},
            L1L2(0.16, 0.12),
        ),
        (
            SGDClassifier("log_loss", alpha=0.1, **STOCHASTIC),
            "SGDClassifier",
            {"alpha": 0.1, "loss": "log_loss"},
            L2(0.1),
        ),
    ],
    ids=["l2", "l1", "elasticnet", "log_loss"],
)
def test_what_is_stochastic_is_nearly_so(
    estimator: Any, name: str, settings: dict[str, Any], guess: Regularizer
) -> None:
    slope, y = (log_loss, LABELS) if "loss" in settings else (squared, Y)
    estimator.fit(X, y)

    def apart(found: Any) -> float:
        weights, _ = fitted(found, slope, y)
        return float(np.linalg.norm(weights - estimator.coef_) / np.linalg.norm(weights))

    assert apart(convert(f"sklearn.{name}", **settings)) < 0.02
    assert apart(guess) > 0.06


def test_quantiles_have_no_better_neighbours() -> None:
    theirs = QuantileRegressor(alpha=0.1).fit(X, Y)
    rng = np.random.default_rng(1)
    near = [1e-3 * rng.normal(size=5) for _ in range(300)]

    def is_least(regularizer: Any) -> bool:
        def objective(shift: Any) -> float:
            weights = theirs.coef_ + shift[:4]
            left = Y - X @ weights - theirs.intercept_ - shift[4]
            return float(np.abs(left).mean() / 2 + regularizer(weights))

        return min(map(objective, near)) >= objective(np.zeros(5)) - 1e-12

    assert is_least(convert("sklearn.QuantileRegressor", alpha=0.1))
    assert not is_least(L1(0.2))
    assert not is_least(L1(0.1 / N))


@pytest.mark.parametrize("solver", ["lbfgs", "sgd"])
def test_a_network_of_scikit_learn_is_at_rest(solver: str) -> None:
    """Where it ends, the gradients of the loss and of the penalty cancel."""
    batches = {"batch_size": 10} if solver == "sgd" else {}
    paced = {"learning_rate_init": 0.002, "n_iter_no_change": 500, "max_iter": 3000}
    theirs = MLPRegressor(
        hidden_layer_sizes=(1,), activation="identity", solver=solver, alpha=0.4, random_state=0,
        **(paced | {"tol": 0.0} if batches else TIGHT), **batches,
    ).fit(X, Y)  # fmt: skip
    settings = {"batch_size": 10} if batches else {"n": N}
    ours = convert("sklearn.MLPRegressor", alpha=0.4, solver=solver, **settings)
    assert isinstance(ours, L2)
    first, second = theirs.coefs_
    slope = squared(theirs.predict(X), Y)
    # Of many steps that were stochastic, the strength is found to a few percent.
    measured = -np.sum(X.T @ slope * (first @ second)[:, 0]) / np.sum(first**2) / 2
    assert measured == pytest.approx(ours.strength, rel=0.1 if batches else 1e-4)
    assert measured != pytest.approx(0.4, rel=0.2)


# --- optimizers ------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kernel, self.norm = nn.Linear(3, 2), nn.LayerNorm(2)

    def forward(self, x: Any) -> Any:
        return self.norm(self.kernel(x))


def after_two_steps(model: nn.Module, optimizer: Any, factor: float = 1.0) -> torch.Tensor:
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)
    for _ in range(2):
        optimizer.zero_grad()
        (factor * (model(x) - 1).square().mean()).backward()
        optimizer.step()
    return nn.utils.parameters_to_vector(model.parameters()).detach()


TORCH = [unit for unit in TABLE if unit.name.startswith("torch.optim.")]


@pytest.mark.parametrize("unit", TORCH, ids=lambda unit: unit.title)
def test_an_optimizer_of_pytorch(unit: units.Unit) -> None:
    kind = getattr(torch.optim, unit.name.rpartition(".")[2])
    options: dict[str, Any] = {key: value == "True" for key, (value,) in unit.when.items()}

    def stepped(weight_decay: float, rules: Any = None) -> torch.Tensor:
        model: nn.Module = Net().double()
        if kind is torch.optim.Muon:
            model = nn.Linear(3, 2, bias=False).double()
            torch.nn.init.constant_(model.weight, 0.5)
        optimizer = kind(model.parameters(), lr=0.1, weight_decay=weight_decay, **options)
        if rules is not None:
            regularize(model, rules).attach(optimizer, mode=unit.mode)
        # (Adafactor scales a step by the norm of the weight, which the decay has changed.)
        return after_two_steps(model, optimizer, float(kind is not torch.optim.Adafactor))

    rules = convert(unit.name, weight_decay=0.05, **options)
    assert isinstance(rules, dict)
    theirs = stepped(0.05)
    torch.testing.assert_close(stepped(0.0, rules), theirs, rtol=1e-6, atol=1e-9)
    for guess in ({everything: L2(0.05)}, {everything: rules[everything], biases: None}):
        if kind is not torch.optim.Muon or guess == {everything: L2(0.05)}:
            assert not torch.allclose(stepped(0.0, guess), theirs, rtol=1e-6, atol=1e-9)


OPTAX = [unit for unit in TABLE if unit.name.startswith("optax.") and not unit.why_not]
OPTAX = [unit for unit in OPTAX if "sophia" not in unit.name]  # its update calls the loss


@pytest.mark.parametrize("unit", OPTAX, ids=lambda unit: unit.title)
def test_a_transform_of_optax(unit: units.Unit) -> None:
    import jax.numpy as jnp
    import optax

    from penalize.jax import regularize as planned

    make: Any = optax
    for part in unit.name.split(".")[1:]:
        make = getattr(make, part)
    lr, word = 0.1, unit.settings[0].text
    params = {"dense": {"kernel": jnp.full((4, 4), 1.0), "bias": jnp.full(4, 1.0)}}
    # Weights without a gradient, which only a decay moves.
    still = {"dense": {"kernel": jnp.zeros((4, 4)), "bias": jnp.zeros(4)}}

    def stepped(transform: Any) -> Any:
        updates, _ = transform.update(still, transform.init(params), params)
        return jnp.concatenate([(-u).ravel() for u in updates["dense"].values()])

    beside = {} if "cocob" in unit.name else {"learning_rate": lr}
    theirs = stepped(make(**beside, **{word: 0.01}))
    needs_rate = any(each.text == "learning_rate" for each in unit.settings)
    rules = convert(unit.name, **{word: 0.01}, **({"learning_rate": lr} if needs_rate else {}))
    none = {"weight_decay_rate": None} if word == "weight_decay_rate" else {word: 0.0}

    def ours(rules: Any) -> Any:
        plan = planned(params, rules)
        return stepped(optax.chain(make(**beside, **none), plan.decoupled(lr)))

    np.testing.assert_allclose(ours(rules), theirs, rtol=1e-4)
    for guess in ({everything: L2(0.01)}, rules[everything]):
        assert not np.allclose(ours(guess), theirs, rtol=1e-4)


KERAS = [u for u in TABLE if u.name.startswith("keras.") and u.mode]


def test_optimizers_of_keras() -> None:
    import keras

    def stepped(unit: units.Unit, weight_decay: float | None, start: Any) -> Any:
        variable = keras.Variable(start)
        kind = getattr(keras.optimizers, unit.name.rpartition(".")[2])
        optimizer = kind(learning_rate=0.1, weight_decay=weight_decay)
        optimizer.apply([keras.ops.zeros(4)], [variable])
        return variable.numpy()

    start = np.array([1.0, -2.0, 0.5, 3.0], "float32")
    for unit in KERAS:
        rules = convert(unit.name, weight_decay=0.01)
        assert isinstance(rules, dict)
        ours = rules[everything]
        assert ours is not None
        decayed = start - 0.1 * ours.gradient(start)
        theirs = stepped(unit, 0.01, start)
        np.testing.assert_allclose(theirs, decayed, rtol=1e-5, err_msg=unit.name)
        assert not np.allclose(theirs, start - 0.1 * L2(0.01).gradient(start), rtol=1e-5)


# --- by formula ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (convert("sklearn.Ridge", alpha=2.0, n=8), L2.from_ridge(2.0, 8)),
        (convert("sklearn.Lasso", alpha=0.3), L1.from_lasso(0.3)),
        (
            convert("skglm.ElasticNet", alpha=0.3, l1_ratio=0.25),
            L1L2.from_elastic_net(0.3, 0.25),
        ),
        (convert("celer.LogisticRegression", C=0.5, n=8), L1.from_C(0.5, 8)),
        (convert("sklearn.LogisticRegression", C=0.5, n=8), L2.from_C(0.5, 8)),
        (convert("celer.GroupLasso", alpha=0.5, groups=0), GroupLasso.from_lasso(0.5, 0)),
        (convert("skglm.MCPRegression", alpha=0.5, gamma=3), MCP(0.5, 3, factor=2)),
        (
            convert("glmnet.ElasticNet", alpha=0.5, lambda_=0.5, sd_y=2.0),
            L1L2(0.5, 0.125),
        ),
        (
            convert("group_lasso.GroupLasso", l1_reg=0.25, group_reg=0.5, groups=0),
            L1(1.0) + GroupLasso(2.0, 0),
        ),
        (
            convert("group_lasso.GroupLasso", l1_reg=0, group_reg=0.5, groups=0, scale_reg="none"),
            GroupLasso(2.0, 0, size_weighted=False),
        ),
        (convert("sklearn.ElasticNet", alpha=0.5, l1_ratio=1), L1(1.0)),
        (convert("sklearn.ElasticNet", alpha=0.5, l1_ratio=0), L2(0.5)),
        (convert("sklearn.ElasticNet", alpha=0, l1_ratio=0.5), L2(0.0)),
        (
            convert("statsmodels.OLS", alpha=0.5, L1_wt=0.5),
            {everything: L1L2(0.5, 0.25)},
        ),
        (
            convert("pyspark.ml.LinearRegression", regParam=1, sd_y=4, solver="normal"),
            L2(0.25),
        ),
        (convert("liblinear.train", C=0.5, n=4, s=6), {everything: L1(0.5)}),
        (convert("xgboost.gblinear", alpha=1, lambda_=2, objective="reg:squarederror"), L1L2(2, 2)),
        (
            convert("mindspore.Momentum", weight_decay=0.01),
            {everything: L2(0.005), norms: None},
        ),
        (
            convert("transformers.Trainer", weight_decay=0.01),
            {everything: L2(0.005), biases: None, norms: None},
        ),
        (
            convert("chainer.Adam", weight_decay_rate=0.25, learning_rate=0.5),
            {everything: L2(0.25)},
        ),
        (convert("thinc.Adam", L2=0.01), {everything: L2(0.005)}),
        (convert("tf.nn.l2_loss", scale=0.25), L2.from_half(0.25)),
        (convert("tf.contrib.layers.l2_regularizer", scale=0.25), L2.from_half(0.25)),
        (convert("tf.contrib.layers.l1_l2_regularizer", scale_l1=1, scale_l2=1), L1L2(1, 0.5)),
        (convert("keras.L1L2", l1=1, l2=2), L1L2(1, 2)),
        (convert("keras.OrthogonalRegularizer", factor=0.5), Orthogonal(0.5, "rows")),
        (
            convert("keras.OrthogonalRegularizer", factor=0.5, mode="columns"),
            Orthogonal(0.5, "columns"),
        ),
    ],
    ids=str,
)
def test_converted(found: Any, expected: Any) -> None:
    assert found == expected


PARTS = {"n": 40, "outputs": 2, "batch_size": 10, "sd_y": 3.0, "learning_rate": 0.1, "eta": 2.0}


def named(value: Any) -> str:
    """No address, which differs in each worker."""
    return str(np.shape(value) or getattr(value, "__name__", value))


@pytest.mark.parametrize(
    "unit",
    [unit for unit in TABLE if not unit.why_not and unit.make is None],
    ids=lambda unit: unit.title,
)
def test_there_and_back(unit: units.Unit) -> None:
    """From settings to a regularizer, and to the settings again."""
    settings = {
        each.text: PARTS.get(each.text, 0.3 + 0.1 * i) for i, each in enumerate(unit.settings)
    }
    chosen = {option: values[0] for option, values in unit.when.items()}
    groups = {} if unit.group is None else {"groups": 0}
    found = convert(unit.name, **settings, **chosen, **groups)
    regularizer = found[everything] if isinstance(found, dict) else found
    assert regularizer is not None
    known = {key: value for key, value in settings.items() if key in PARTS}
    again = invert(unit.name, regularizer, **known, **chosen)
    assert again == pytest.approx({k: v for k, v in settings.items() if k not in PARTS})
    assert unit.package.partition(" ")[2]  # a version
    assert unit.loss or unit.mode
    assert unit.penalty in str(unit)


def test_every_name_is_listed() -> None:
    assert set(names()) == {unit.name for unit in TABLE}
    assert "sklearn.Ridge" in names("sklearn")
    assert not any(name.startswith("skglm") for name in names("sklearn"))
    assert find("sklearn.LogisticRegression", solver="liblinear").reach.exempt == ()
    said = str(find("optax.adafactor"))
    assert 'mode="decoupled"' in said
    assert "often taken for what AdamW has" in said
    assert "no counterpart: its trust ratio" in str(find("optax.lamb"))


# --- fitted estimators -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimator", "slope", "y"),
    [
        (Ridge(3.0), squared, Y),
        (Ridge(3.0), squared, TASKS),
        (RidgeCV([0.5, 5.0]), squared, Y),
        (Lasso(0.1, **TIGHT), squared, Y),
        (Lasso(0.1, **TIGHT), squared, TASKS),
        (ElasticNet(0.1, l1_ratio=0.3, **TIGHT), squared, TASKS),
        (LassoCV(alphas=5, cv=3, **TIGHT), squared, Y),
        (ElasticNetCV(alphas=3, l1_ratio=[0.2, 0.7], cv=3, **TIGHT), squared, Y),
        (logistic(C=0.3), log_loss, LABELS),
        (logistic(C=0.3, l1_ratio=1, solver="saga"), log_loss, LABELS),
        (LogisticRegression(C=0.3, solver="liblinear", **ROOMY), log_loss, LABELS),
    ],
    ids=named,
)
def test_a_fitted_estimator_is_read(estimator: Any, slope: Any, y: Any) -> None:
    estimator.fit(X, y)
    assert are_close(read(estimator, n=N), estimator, slope, y)


def stand_in(package: str, name: str, **attributes: Any) -> Any:
    """What ``read`` sees of a package that is not installed: ``make units-again`` asks the real."""
    kind = type(name, (), {"__module__": f"{package}.estimators"})
    made = kind()
    vars(made).update({"coef_": np.ones(6), "positive": False, **attributes})
    return made


GROUPED = {"alpha": 0.1, "weights": None}
MIXED = L1L2.from_elastic_net(0.2, 0.25)


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        (stand_in("celer", "Lasso", alpha=0.1, weights=None), L1(0.2)),
        (stand_in("celer", "LassoCV", alpha_=0.3), L1(0.6)),
        (stand_in("celer", "ElasticNet", alpha=0.2, l1_ratio=0.25), MIXED),
        (stand_in("celer", "ElasticNetCV", alpha_=0.2, l1_ratio_=0.25), MIXED),
        (stand_in("celer", "LogisticRegression", C=0.5, coef_=np.ones((1, 6))), L1(2 / N)),
        (stand_in("skglm", "Lasso", alpha=0.1), L1(0.2)),
        (stand_in("skglm", "ElasticNet", alpha=0.2, l1_ratio=0.25), MIXED),
        (stand_in("skglm", "SparseLogisticRegression", alpha=0.1, l1_ratio=1.0), L1(0.1)),
        (
            stand_in("skglm", "MCPRegression", alpha=0.1, gamma=3.0, weights=None),
            MCP(0.1, 3.0, factor=2.0),
        ),
        *(
            (
                stand_in(package, "GroupLasso", groups=groups, **GROUPED),
                GroupLasso(0.2, parts, size_weighted=False),
            )
            for package in ("celer", "skglm")
            for groups, parts in (
                (3, [[0, 1, 2], [3, 4, 5]]),
                ([2, 1, 3], [[0, 1], [2], [3, 4, 5]]),
                ([[0, 5], [1, 2, 3, 4]], [[0, 5], [1, 2, 3, 4]]),
            )
        ),
    ],
)
def test_estimators_of_other_packages_are_read(estimator: Any, expected: Any) -> None:
    found = read(estimator, n=N)
    assert repr(found) == repr(expected)
    assert found == expected


class Mine(Ridge):  # type: ignore[misc]
    """Another class, which may fit something else."""


@pytest.mark.parametrize(
    ("estimator", "n", "message"),
    [
        (LinearRegression().fit(X, Y), N, "read got sklearn's LinearRegression; it reads Ridge"),
        (Mine().fit(X, Y), N, r"read got \w+'s Mine; it reads Ridge"),
        (3, N, "read got builtins's int"),
        (
            stand_in("statsmodels", "RegularizedResultsWrapper"),
            N,
            r"statsmodels's RegularizedResultsWrapper, which keeps no alpha; write "
            r'penalize\.units\.convert\("statsmodels\.OLS"',
        ),
        (stand_in("skglm", "WeightedLasso", alpha=0.1), N, "reads Lasso, ElasticNet, GroupLasso"),
        (stand_in("celer", "Lasso", alpha=0.1, weights=np.ones(6)), N, "has weights=array"),
        (stand_in("skglm", "SparseLogisticRegression", alpha=1.0, l1_ratio=0.5), N, "l1_ratio=0.5"),
        (stand_in("celer", "LogisticRegression", C=1.0), None, "does not keep how many samples"),
        (Ridge(), N, r"this Ridge was not fitted; call fit\(X, y\)"),
        (Ridge().fit(X, Y), None, r"Ridge does not keep how many samples.*n=len\(X\)"),
        (logistic().fit(X, LABELS), None, "LogisticRegression does not keep how many samples"),
        (Lasso(positive=True).fit(X, Y), None, "has positive=True, which makes it another"),
        (logistic(class_weight="balanced").fit(X, LABELS), N, "has class_weight='balanced'"),
        (logistic(C=np.inf).fit(X, LABELS), N, "got C=inf; expected a finite number > 0"),
        (
            LogisticRegression(solver="liblinear", l1_ratio=1).fit(X, LABELS),
            N,
            "got l1_ratio, which its formula",
        ),
    ],
)
def test_an_estimator_that_is_not_read(estimator: Any, n: Any, message: str) -> None:
    with pytest.raises(UnitsError, match=f"(?i){message}"):
        read(estimator, n=n)


def test_before_there_was_an_l1_ratio() -> None:
    estimator = logistic(C=0.25).fit(X, LABELS)
    estimator.penalty = "l1"
    assert read(estimator, n=N) == L1.from_C(0.25, N)
    estimator.penalty = None
    with pytest.raises(UnitsError, match="has penalty=None; it has no regularizer"):
        read(estimator, n=N)


# --- messages ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("sklearn.ridge", {}, "There is no 'sklearn.ridge' in the table of units; the nearest are "
         "'sklearn.Ridge', 'sklearn.RidgeClassifier'"),
        ("scikit-learn.Lasso", {}, "the nearest are .*'sklearn.Lasso'"),
        ("zzz", {}, r"There is no 'zzz'.*penalize.units.names\(\) lists"),
        (3, {}, "There is no 3 in the table"),
        ("sklearn.Ridge", {"alpha": 1.0}, "sklearn.Ridge needs n .how many samples it was fitted "
         r".*its formula is L2\(alpha / n\); give it alpha and n"),
        ("optax.adafactor", {"weight_decay_rate": 1e-4}, "needs learning_rate .the learning rate"),
        ("sklearn.Ridge", {"alpha": 1, "n": 2, "sd_y": 3}, "got sd_y, which its formula L2.alpha"),
        ("sklearn.Lasso", {"alpha": 1, "groups": 0}, "got groups, which its formula"),
        ("skglm.GroupLasso", {"alpha": 1}, r"penalizes groups, and got none; write convert"),
        ("sklearn.MLPRegressor", {"alpha": 1, "n": 2}, "is something else by its options; the "
         r"table has sklearn.MLPRegressor\(solver=lbfgs\), sklearn.MLPRegressor\(solver=sgd\)"),
        ("sklearn.MLPRegressor", {"alpha": 1, "n": 2, "solver": "adam"},
         "was not measured with solver='adam'; the table has"),
        ("optax.lamb", {"weight_decay": 1}, "has no counterpart; its trust ratio"),
        ("group_lasso.GroupLasso", {"scale_reg": "inverse_group_size"}, "no counterpart; its gro"),
        ("sklearn.Ridge", {"alpha": 1, "n": 0}, "sklearn.Ridge got n=0; expected a finite number"),
        ("sklearn.ElasticNet", {"alpha": 1, "l1_ratio": 2}, "l1_ratio=2; expected one from 0 to 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_converted(name: Any, settings: Any, message: str) -> None:
    with pytest.raises(UnitsError, match=message):
        convert(name, **settings)


@pytest.mark.parametrize("unit", [unit for unit in TABLE if unit.why_not], ids=lambda u: u.title)
def test_what_has_no_counterpart_says_why(unit: units.Unit) -> None:
    chosen = {option: values[0] for option, values in unit.when.items()}
    for use in (lambda: convert(unit.name, **chosen), lambda: invert(unit.name, L2(1), **chosen)):
        with pytest.raises(UnitsError, match=re.escape(unit.why_not.rstrip("."))):
            use()


@pytest.mark.parametrize(
    ("name", "regularizer", "settings", "message"),
    [
        ("sklearn.Ridge", L1(1.0), {"n": 3}, r"No settings of sklearn.Ridge are L1\(1.0\)"),
        ("sklearn.Ridge", L2(1.0), {}, "sklearn.Ridge needs n"),
        ("sklearn.Ridge", L2(1.0), {"m": 3}, "got m, which its formula"),
        ("sklearn.Ridge", NuclearNorm(1.0), {"n": 3}, "No settings of sklearn.Ridge are Nucl"),
        ("sklearn.Ridge", "L2", {"n": 3}, r"Invert got 'L2' \(str\); give it the regularizer"),
        ("skglm.GroupLasso", GroupLasso(1.0, 0), {}, "No settings of skglm.GroupLasso are"),
        ("skglm.MCPRegression", MCP(1.0), {}, "No settings of skglm.MCPRegression are MCP"),
        ("sklearn.LogisticRegression", L2(0.0), {"n": 3}, "No settings of sklearn.Logistic"),
        ("sklearn.ElasticNet", L1L2(1, 2), {"l1_ratio": 0.5}, "No settings of sklearn.ElasticNet"),
    ],
)
def test_what_cannot_be_inverted(name: Any, regularizer: Any, settings: Any, message: str) -> None:
    with pytest.raises(UnitsError, match=message):
        invert(name, regularizer, **settings)


def test_what_is_known_stays() -> None:
    net = L1L2.from_elastic_net(0.3, 0.25)
    assert invert("sklearn.ElasticNet", net, l1_ratio=0.25) == pytest.approx({"alpha": 0.3})
    assert invert("sklearn.LogisticRegression", L2.from_C(0.5, 8), n=8, l1_ratio=0) == {"C": 0.5}


def test_no_such_option() -> None:
    with pytest.raises(UnitsError, match=r"sklearn\.Ridge has no option solver; the table has"):
        find("sklearn.Ridge", solver="lsqr")


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: L2.from_ridge(-1, 3), StrengthError, "L2 got alpha=-1"),
        (lambda: L2.from_ridge(1, 0), UnitsError, "L2.from_ridge got n=0; expected a finite num"),
        (lambda: L2.from_ridge(1, "3"), UnitsError, "L2.from_ridge got n='3'"),
        (lambda: L1.from_lasso(np.nan), StrengthError, "L1 got alpha=nan"),
        (lambda: L1L2.from_elastic_net(-1, 0.5), StrengthError, "L1L2 got alpha=-1"),
        (lambda: L1L2.from_elastic_net(1, 1.5), UnitsError, "l1_ratio=1.5; expected one from 0 to"),
        (lambda: L1.from_C(0, 3), UnitsError, "L1.from_C got C=0; expected a finite number > 0"),
        (lambda: L2.from_C(1, -3), UnitsError, "L2.from_C got n=-3; expected a finite number > 0"),
        (lambda: L2.from_C(True, 3), UnitsError, "L2.from_C got C=True"),
        (lambda: GroupLasso.from_lasso(-1, 0), StrengthError, "GroupLasso got alpha=-1"),
        (lambda: convert("sklearn.Lasso", alpha=-1), StrengthError, "sklearn.Lasso got alpha=-1"),
    ],
)
def test_bad_numbers(make: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        make()


def test_numbers_of_numpy_are_numbers() -> None:
    assert L2.from_ridge(np.float32(2), np.int64(8)) == L2(0.25)
    assert isinstance(convert("sklearn.Lasso", alpha=np.float64(1)), Regularizer)
