"""The regularizer with which a fitted estimator of scikit-learn would be found again."""

from __future__ import annotations

from typing import Any

from penalize.errors import UnitsError
from penalize.regularizers import Regularizer
from penalize.units.table import convert
from penalize.units.unit import PerSelector

_READ = {
    "Ridge": ("sklearn.Ridge", {"alpha": "alpha"}),
    "RidgeCV": ("sklearn.Ridge", {"alpha": "alpha_"}),
    "Lasso": ("sklearn.Lasso", {"alpha": "alpha"}),
    "LassoCV": ("sklearn.Lasso", {"alpha": "alpha_"}),
    "ElasticNet": ("sklearn.ElasticNet", {"alpha": "alpha", "l1_ratio": "l1_ratio"}),
    "ElasticNetCV": ("sklearn.ElasticNet", {"alpha": "alpha_", "l1_ratio": "l1_ratio_"}),
    "LogisticRegression": ("sklearn.LogisticRegression", {"C": "C", "solver": "solver"}),
}
"""The estimators that are read: their name in the table → its settings → their attributes."""

_AS_IS = {"positive": False, "class_weight": None, "intercept_scaling": 1}
"""Arguments that change the problem, with what leaves it as the table has it."""


def read(estimator: Any, n: float | None = None) -> Regularizer | PerSelector:
    """The regularizer with the same solution as a fitted estimator of scikit-learn.

    Beside ``nn.MSELoss``, or for ``LogisticRegression`` beside ``nn.BCEWithLogitsLoss`` (two
    classes) or ``nn.CrossEntropyLoss`` (more). Rules where the intercept is penalized, too, which
    is so for ``solver="liblinear"``. ``Ridge``, ``Lasso``, ``ElasticNet``, their searches
    ``RidgeCV``, ``LassoCV`` and ``ElasticNetCV`` with what they chose, and ``LogisticRegression``.

    Args:
        estimator: one that was fitted, without sample weights.
        n: how many samples it was fitted on, which ``Ridge`` and ``LogisticRegression`` need and do
            not keep.

    Raises:
        UnitsError: it is another estimator or was not fitted, n is missing, or it has an argument
            that makes it another problem.
    """
    kind = type(estimator)
    if not kind.__module__.startswith("sklearn.linear_model.") or kind.__name__ not in _READ:
        raise UnitsError(
            f"read got {_named(estimator)}",
            f"it reads {', '.join(_READ)} of scikit-learn; penalize.units.convert has the formulas "
            "of others",
        )
    if not hasattr(estimator, "coef_"):
        raise UnitsError(f"this {kind.__name__} was not fitted", "call fit(X, y) on it first")
    _check_as_is(estimator)
    name, attributes = _READ[kind.__name__]
    settings = {key: getattr(estimator, attribute) for key, attribute in attributes.items()}
    if kind.__name__ == "LogisticRegression":
        return convert(name, n=_samples(kind.__name__, n), **settings, **_mixed(estimator))
    outputs = len(estimator.coef_) if estimator.coef_.ndim > 1 else 1
    if name == "sklearn.Ridge":
        return convert(name, n=_samples(kind.__name__, n) * outputs, **settings)
    found = convert(name, **settings)
    assert isinstance(found, Regularizer)  # it penalizes no intercept
    return found.scaled(1 / outputs)


def _samples(estimator: str, n: float | None) -> Any:
    if n is None:
        raise UnitsError(
            f"{estimator} does not keep how many samples it was fitted on",
            "write read(estimator, n=len(X))",
        )
    return n


def _check_as_is(estimator: Any) -> None:
    for argument, plain in _AS_IS.items():
        value = getattr(estimator, argument, plain)
        if value != plain:
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
