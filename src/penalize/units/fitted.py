"""The regularizer with which a fitted estimator would be found again."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any

from penalize.errors import UnitsError
from penalize.regularizers import Regularizer
from penalize.units.table import convert
from penalize.units.unit import PerSelector

_ALPHA, _MIXED = {"alpha": "alpha"}, {"alpha": "alpha", "l1_ratio": "l1_ratio"}
_LASSOS = {
    "Lasso": ("Lasso", _ALPHA),
    "LassoCV": ("Lasso", {"alpha": "alpha_"}),
    "ElasticNet": ("ElasticNet", _MIXED),
    "ElasticNetCV": ("ElasticNet", {"alpha": "alpha_", "l1_ratio": "l1_ratio_"}),
}
_READ = {
    "sklearn": {
        "Ridge": ("Ridge", _ALPHA),
        "RidgeCV": ("Ridge", {"alpha": "alpha_"}),
        **_LASSOS,
        "LogisticRegression": ("LogisticRegression", {"C": "C", "solver": "solver"}),
    },
    "celer": {
        **_LASSOS,
        "GroupLasso": ("GroupLasso", _ALPHA),
        "LogisticRegression": ("LogisticRegression", {"C": "C"}),
    },
    "skglm": {
        "Lasso": ("Lasso", _ALPHA),
        "ElasticNet": ("ElasticNet", _MIXED),
        "GroupLasso": ("GroupLasso", _ALPHA),
        "MCPRegression": ("MCPRegression", {**_ALPHA, "gamma": "gamma"}),
        "SparseLogisticRegression": ("SparseLogisticRegression", _ALPHA),
    },
}
"""The estimators that are read, by their package: their name in the table → its settings → their
attributes."""

_AS_IS = {"positive": False, "weights": None, "class_weight": None, "intercept_scaling": 1}
"""Arguments that change the problem, with what leaves it as the table has it."""


def read(estimator: Any, n: float | None = None) -> Regularizer | PerSelector:
    """The regularizer with the same solution as a fitted estimator of scikit-learn, celer or skglm.

    Beside ``nn.MSELoss``, or for logistic regressions beside ``nn.BCEWithLogitsLoss`` (two classes)
    or ``nn.CrossEntropyLoss`` (more). Rules where the intercept is penalized, too, which is so for
    scikit-learn's ``solver="liblinear"``. scikit-learn's ``Ridge``, ``Lasso``, ``ElasticNet``,
    their searches ``RidgeCV``, ``LassoCV`` and ``ElasticNetCV`` with what they chose, and
    ``LogisticRegression``; celer's ``Lasso``, ``ElasticNet``, their searches, ``GroupLasso`` and
    ``LogisticRegression``; skglm's ``Lasso``, ``ElasticNet``, ``GroupLasso``, ``MCPRegression`` and
    ``SparseLogisticRegression``. Groups are those of the inputs of one output.

    Args:
        estimator: one that was fitted, without sample weights.
        n: how many samples it was fitted on, which ``Ridge`` and ``LogisticRegression`` need and do
            not keep.

    Raises:
        UnitsError: it is another estimator or was not fitted, n is missing, or it has an argument
            that makes it another problem.
    """
    kind = type(estimator)
    package = kind.__module__.partition(".")[0]
    known = _READ.get(package, {})
    if package == "statsmodels":
        raise UnitsError(
            f"read got {_named(estimator)}, which keeps no alpha",
            'write penalize.units.convert("statsmodels.OLS", alpha=…, L1_wt=…), or the name of '
            "its model",
        )
    if kind.__name__ not in known:
        raise UnitsError(
            f"read got {_named(estimator)}",
            f"it reads {', '.join(known or _READ['sklearn'])} of "
            f"{package if known else 'scikit-learn, and some of celer and skglm'}; "
            "penalize.units.convert has the formulas of others",
        )
    if not hasattr(estimator, "coef_"):
        raise UnitsError(f"this {kind.__name__} was not fitted", "call fit(X, y) on it first")
    _check_as_is(estimator)
    short, attributes = known[kind.__name__]
    name = f"{package}.{short}"
    settings = {key: getattr(estimator, attribute) for key, attribute in attributes.items()}
    if short == "LogisticRegression":
        mixed = _mixed(estimator) if package == "sklearn" else {}
        return convert(name, n=_samples(short, n), **settings, **mixed)
    if short == "GroupLasso":
        return convert(name, groups=_groups(estimator), **settings)
    outputs = len(estimator.coef_) if estimator.coef_.ndim > 1 and package == "sklearn" else 1
    if short == "Ridge":
        return convert(name, n=_samples(kind.__name__, n) * outputs, **settings)
    found = convert(name, **settings)
    assert isinstance(found, Regularizer)  # it penalizes no intercept
    return found if outputs == 1 else found.scaled(1 / outputs)


def _groups(estimator: Any) -> list[list[int]]:
    """The parts of the inputs; celer and skglm take a size, the sizes, or the members."""
    groups, count = estimator.groups, estimator.coef_.size
    if isinstance(groups, int):
        groups = [groups] * (count // groups)
    if all(isinstance(each, int) for each in groups):
        ends = list(accumulate(groups, initial=0))
        return [list(range(first, last)) for first, last in pairwise(ends)]
    return [[int(i) for i in each] for each in groups]


def _samples(estimator: str, n: float | None) -> Any:
    if n is None:
        raise UnitsError(
            f"{estimator} does not keep how many samples it was fitted on",
            "write read(estimator, n=len(X))",
        )
    return n


def _check_as_is(estimator: Any) -> None:
    own = {"l1_ratio": 1.0} if type(estimator).__name__ == "SparseLogisticRegression" else {}
    for argument, plain in {**_AS_IS, **own}.items():
        value = getattr(estimator, argument, plain)
        if value is not None if plain is None else value != plain:
            raise UnitsError(
                f"{_named(estimator)} has {argument}={value!r}, which makes it another problem",
                f"fit it with {argument}={plain!r}, or see penalize.units.convert",
            )


def _mixed(estimator: Any) -> dict[str, float]:
    """The l1_ratio of a logistic regression, which before scikit-learn 1.8 was a ``penalty``."""
    penalty = getattr(estimator, "penalty", "deprecated")
    if penalty is None:
        raise UnitsError(f"{_named(estimator)} has penalty=None", "it has no regularizer")
    ratio = {"l1": 1.0, "l2": 0.0}.get(penalty, estimator.l1_ratio)
    return {"l1_ratio": ratio} if ratio else {}


def _named(estimator: Any) -> str:
    kind = type(estimator)
    return f"{kind.__module__.partition('.')[0]}'s {kind.__name__}"
