"""Units of packages that are not installed here, measured again: ``make units-again``.

Each package of ``PACKAGES`` is installed at its version in an environment of its own, in a
temporary folder, and fitted there. At its solution the gradient of the mean loss and that of the
penalty that ``penalize.units.convert`` gives cancel: printed is the factor by which the penalty
would have to be multiplied, which is 1, and how far any coordinate is off. Ends with 1 where one is
not what the table says. No part of CI.

``python scripts/units.py skglm celer`` measures these only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parent.parent / "src"
PINNED = ["numpy==2.4.6", "scipy==1.17.1", "scikit-learn==1.9.1"]
PACKAGES = {
    "skglm": ["skglm==0.5"],
    "celer": ["celer==0.7.4"],
    "group_lasso": ["group-lasso==1.5.0"],
    "statsmodels": ["statsmodels==0.15.0"],
    "glum": ["glum==3.4.1"],
    "asgl": ["asgl==2.2.0"],
}
READ = {"skglm", "celer"}
"""Packages whose estimators ``penalize.units.read`` takes."""

CLOSE = 5e-4
GROUPS = [[0, 1], [2], [3, 4, 5]]
OF_GROUP = [0, 0, 1, 2, 2, 2]

Fit = tuple[str, dict[str, Any], str, Callable[[Any, Any], tuple[Any, float]]]
"""A name of the table, its settings, the loss, and what fits X and y to weights, intercept."""


# --- within the environment --------------------------------------------------------------------


def fits_of(package: str) -> Iterator[Fit]:
    """What is fitted of a package."""
    tight = {"tol": 1e-12}
    if package in ("skglm", "celer"):
        yield from _as_scikit_learn(package, tight)
    if package == "skglm":
        import skglm

        yield _sklearn("skglm.GroupLasso", {"alpha": 0.1}, "squared",
                       lambda: skglm.GroupLasso([2, 1, 3], 0.1, tol=1e-10))  # fmt: skip
        yield _sklearn("skglm.SparseLogisticRegression", {"alpha": 0.05}, "log",
                       lambda: skglm.SparseLogisticRegression(0.05, tol=1e-10))  # fmt: skip
        yield _sklearn("skglm.MCPRegression", {"alpha": 0.2, "gamma": 3.0}, "squared",
                       lambda: skglm.MCPRegression(0.2, 3.0, tol=1e-10))  # fmt: skip
    if package == "celer":
        import celer

        yield _sklearn("celer.GroupLasso", {"alpha": 0.1}, "squared",
                       lambda: celer.GroupLasso(GROUPS, 0.1, tol=1e-12))  # fmt: skip
        yield _sklearn(
            "celer.LogisticRegression", {"C": 0.3}, "log",
            lambda: celer.LogisticRegression(C=0.3, tol=1e-10, fit_intercept=False),
        )  # fmt: skip
    if package == "group_lasso":
        yield from _group_lasso()
    if package == "statsmodels":
        yield from _statsmodels()
    if package == "glum":
        from glum import GeneralizedLinearRegressor as Glum

        within = {"gradient_tol": 1e-10, "max_iter": 10_000}
        name = "glum.GeneralizedLinearRegressor"
        yield _sklearn(name, {"alpha": 0.2, "l1_ratio": 0.3}, "squared",
                       lambda: Glum(alpha=0.2, l1_ratio=0.3, **within))  # fmt: skip
        yield _sklearn(
            name, {"alpha": 0.2, "l1_ratio": 0.3, "family": "binomial"}, "log",
            lambda: Glum(alpha=0.2, l1_ratio=0.3, family="binomial", **within),
        )  # fmt: skip
    if package == "asgl":
        yield from _asgl()


def _sklearn(name: str, settings: dict[str, Any], loss: str, make: Callable[[], Any]) -> Fit:
    """An estimator with ``coef_`` and ``intercept_``."""

    def fit(x: Any, y: Any) -> tuple[Any, float]:
        import numpy as np

        fitted = make().fit(x, y)
        _FITTED[:] = [fitted]
        return fitted.coef_.ravel(), float(np.sum(getattr(fitted, "intercept_", 0.0)))

    return name, settings, loss, fit


_FITTED: list[Any] = []
"""The last estimator that was fitted."""


def _as_scikit_learn(package: str, tight: dict[str, float]) -> Iterator[Fit]:
    module = __import__(package)
    yield _sklearn(f"{package}.Lasso", {"alpha": 0.1}, "squared",
                   lambda: module.Lasso(0.1, **tight))  # fmt: skip
    yield _sklearn(f"{package}.ElasticNet", {"alpha": 0.2, "l1_ratio": 0.3}, "squared",
                   lambda: module.ElasticNet(0.2, l1_ratio=0.3, **tight))  # fmt: skip


def _group_lasso() -> Iterator[Fit]:
    from group_lasso import GroupLasso

    for scale in ("group_size", "none"):
        settings = {"l1_reg": 0.01, "group_reg": 0.05, "scale_reg": scale}
        how = {"groups": OF_GROUP, "tol": 1e-12, "n_iter": 100_000, "supress_warning": True}
        yield _sklearn("group_lasso.GroupLasso", settings, "squared",
                       lambda s=settings, h=how: GroupLasso(**h, **s))  # type: ignore[misc]  # fmt: skip


def _statsmodels() -> Iterator[Fit]:
    import statsmodels.api as sm

    def fit(make: Callable[[Any, Any], Any], **how: Any) -> Callable[[Any, Any], tuple[Any, float]]:
        def fitted(x: Any, y: Any) -> tuple[Any, float]:
            found = make(y, sm.add_constant(x)).fit_regularized(**how).params
            return found[1:], float(found[0])

        return fitted

    within = {"cnvrg_tol": 1e-12, "maxiter": 10_000}
    mixed = {"alpha": 0.2, "L1_wt": 0.3}
    yield "statsmodels.OLS", mixed, "squared", fit(sm.OLS, **mixed, **within)
    binomial = sm.families.Binomial()
    glm = fit(lambda y, x: sm.GLM(y, x, family=binomial), **mixed, **within)
    yield "statsmodels.GLM", {**mixed, "family": "binomial"}, "log", glm
    logit = fit(sm.Logit, alpha=2.0, disp=False, acc=1e-12, maxiter=10_000, trim_mode="off")
    yield "statsmodels.Logit", {"alpha": 2.0}, "log", logit


def _asgl() -> Iterator[Fit]:
    from asgl import Regressor

    def one(penalization: str, loss: str = "squared", **settings: Any) -> Fit:
        model = {"squared": "lm", "log": "logit"}[loss]

        def fit(x: Any, y: Any) -> tuple[Any, float]:
            import numpy as np

            fitted = Regressor(model=model, penalization=penalization, **settings)
            grouped = {"group_index": np.array(OF_GROUP)} if penalization in ("gl", "sgl") else {}
            fitted.fit(x, y, **grouped)
            return np.ravel(fitted.coef_), float(np.ravel(fitted.intercept_)[0])

        return (
            "asgl.Regressor",
            {"model": model, "penalization": penalization, **settings},
            loss,
            fit,
        )

    yield one("lasso", lambda1=0.1)
    yield one("ridge", lambda1=0.1)
    yield one("gl", lambda1=0.1)
    yield one("sgl", lambda1=0.1, alpha=0.4)
    yield one("lasso", "log", lambda1=0.05)


def measure(package: str) -> list[tuple[str, float, float]]:
    """Of each fit: its name, the factor, and how far a coordinate is from rest."""
    import numpy as np

    from penalize.units import convert, find, read

    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 6)) * [1.0, 1.5, 0.7, 1.2, 0.5, 2.0] + [0.3, -0.2, 0.5, 0, 0, 0.1]
    y = x @ [1.0, -0.6, 0.8, 0.3, 0.0, 0.2] + 0.5 + 0.5 * rng.normal(size=60)
    measured = []
    for name, settings, loss, fit in fits_of(package):
        target = y if loss == "squared" else (y > 0.4).astype(float)
        weights, intercept = fit(x, target)
        scores = x @ weights + intercept
        if loss == "squared":
            slope = 2 * (scores - target) / len(x)
        else:
            slope = (1 / (1 + np.exp(-scores)) - target) / len(x)
        needed = {each.text for each in find(name, **_options(name, settings)).settings}
        given = {**settings, **({"n": len(x)} if "n" in needed else {})}
        if find(name, **_options(name, settings)).group is not None:
            given["groups"] = GROUPS
        found = convert(name, **given)
        pull = -(x.T @ slope)
        if isinstance(found, dict):  # rules: the intercept, too
            (found,) = found.values()
            pull, weights = np.append(pull, -slope.sum()), np.append(weights, intercept)
        assert found is not None
        left = np.abs(weights) > 1e-6
        wanted = found.gradient(weights)[left]
        factor = float(pull[left] @ wanted / (wanted @ wanted))
        apart = float(np.abs(pull[left] - wanted).max() / np.abs(wanted).max())
        if package in READ:
            again = read(*_FITTED, n=len(x))
            if repr(again) != repr(convert(name, **given)):
                raise SystemExit(f"{name}: read gives {again!r}, and convert {found!r}")
        measured.append((f"{name} {settings}", factor, apart))
    return measured


def _options(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    from penalize.units.table import TABLE

    options = {option for unit in TABLE if unit.name == name for option in unit.when}
    return {key: value for key, value in settings.items() if key in options}


# --- from outside ------------------------------------------------------------------------------


def measured_in_its_own(package: str) -> list[tuple[str, float, float]]:
    """:func:`measure` in a new environment."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder) / "bin" / "python")
        wanted = [*PACKAGES[package], *PINNED]
        subprocess.run([python, "-m", "pip", "install", "-q", *wanted], check=True)
        return measured_by(python, package)


def measured_by(python: str, package: str) -> list[tuple[str, float, float]]:
    """:func:`measure` by a Python that has the package."""
    command = [python, "-W", "ignore", __file__, "--inside", package]
    ran = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )  # fmt: skip
    return [tuple(row) for row in json.loads(ran.stdout.splitlines()[-1])]


def main() -> int:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help=", ".join(PACKAGES))
    parser.add_argument("--inside", choices=PACKAGES, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.inside:
        print(json.dumps(measure(chosen.inside)))
        return 0
    wrong = 0
    for package in chosen.packages or PACKAGES:
        for name, factor, apart in measured_in_its_own(package):
            is_so = apart < CLOSE
            wrong += not is_so
            print(f"{'is so ' if is_so else 'WRONG'} factor {factor:.5f} apart {apart:.1e}  {name}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
