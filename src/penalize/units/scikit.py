"""Estimators of scikit-learn, and of packages that follow it."""

from __future__ import annotations

from penalize.regularizers import MCP
from penalize.units.formulas import setting
from penalize.units.settings import (
    HINGE,
    LOG,
    PINBALL,
    POISSON,
    SQUARED,
    C,
    alpha,
    batch_size,
    l1_ratio,
    l1_ratio_0,
    mixed_by_alpha,
    n,
    outputs,
)
from penalize.units.unit import INTERCEPT_TOO, Unit, units

SKLEARN = "scikit-learn 1.9.1"
CELER, SKGLM = "celer 0.7.4", "skglm 0.5"
ASGL, GROUP_LASSO, GROUPYR = "asgl 2.2.0", "group-lasso 1.5.0", "groupyr 0.3.4"

HALF = "alpha: its squared error has a half, 1/(2n)"
NO_ROOT = "a group lasso with √|g|: it has no weights for sizes"

lambda1 = setting("lambda1")
l1_reg, group_reg = setting("l1_reg"), setting("group_reg")


ONE_OUTPUT = "With one output: `nn.MSELoss` is the mean over several, so divide by how many."


def _half_squared(package: str, module: str, note: str = "") -> list[Unit]:
    """Lasso and ElasticNet where the squared error is divided by 2n."""
    return [
        *units(package, f"{module}.Lasso", l1=2 * alpha, loss=SQUARED, note=note, taken_for=HALF),
        *units(
            package,
            f"{module}.ElasticNet",
            l1=2 * alpha * l1_ratio,
            l2=alpha * (1 - l1_ratio),
            loss=SQUARED,
            note=note,
            taken_for="L1L2(alpha·l1_ratio, alpha·(1 − l1_ratio)/2), as it is written beside its "
            "halved loss",
        ),
    ]


SCIKIT: list[Unit] = [
    *units(
        SKLEARN,
        "sklearn.Ridge sklearn.RidgeClassifier",
        l2=alpha / n,
        loss=SQUARED,
        taken_for="alpha, or alpha/2: its squared error is a sum over the samples",
        note="RidgeClassifier fits targets of ±1.",
    ),
    *_half_squared(SKLEARN, "sklearn", ONE_OUTPUT),
    *units(
        SKLEARN,
        "sklearn.MultiTaskLasso",
        group=2 * alpha / outputs,
        loss=SQUARED,
        note='A group is what an input gives to all outputs: groups="inputs".',
        taken_for="2·alpha: `nn.MSELoss` is the mean over the outputs, too",
    ),
    *units(
        SKLEARN,
        "sklearn.LogisticRegression",
        l1=l1_ratio_0 / (C * n),
        l2=(1 - l1_ratio_0) / (2 * C * n),
        loss=LOG,
        when={"solver": ("lbfgs", "newton-cg", "newton-cholesky", "sag", "saga")},
        assumed=True,
        taken_for="1/C, or 1/(Cn): its loss is a sum over the samples, and its L2 has a half",
    ),
    *units(
        SKLEARN,
        "sklearn.LogisticRegression",
        l2=1 / (2 * C * n),
        loss=LOG,
        reach=INTERCEPT_TOO,
        when={"solver": ("liblinear",)},
        taken_for="what the other solvers find: it penalizes the intercept",
    ),
    *units(
        SKLEARN,
        "sklearn.SGDRegressor",
        l2=alpha,
        loss=SQUARED,
        when={"penalty": ("l2",)},
        assumed=True,
        note="Measured to 1–2 %, as it is stochastic.",
    ),
    *units(
        SKLEARN,
        "sklearn.SGDRegressor",
        l1=2 * alpha,
        loss=SQUARED,
        when={"penalty": ("l1",)},
        note="Measured to 1–2 %, as it is stochastic.",
        taken_for=HALF,
    ),
    *units(
        SKLEARN,
        "sklearn.SGDRegressor",
        l1=2 * alpha * l1_ratio,
        l2=alpha * (1 - l1_ratio),
        loss=SQUARED,
        when={"penalty": ("elasticnet",)},
        note="Measured to 1–2 %, as it is stochastic.",
    ),
    *units(
        SKLEARN,
        "sklearn.SGDClassifier",
        l2=alpha / 2,
        loss=LOG,
        when={"loss": ("log_loss",)},
        note="With penalty='l2', its default.",
        taken_for="alpha: its L2 has a half",
    ),
    *units(
        SKLEARN,
        "sklearn.PoissonRegressor",
        l2=alpha / 2,
        loss=POISSON,
        taken_for="alpha: its L2 has a half",
    ),
    *units(
        SKLEARN,
        "sklearn.HuberRegressor",
        l2=alpha / n,
        loss="the mean of s·H(r/s), H(z) = z² inside, with its own scale s",
        taken_for="alpha: its loss is a sum over the samples",
    ),
    *units(
        SKLEARN,
        "sklearn.LinearSVC",
        l2=1 / (2 * C * n),
        loss=HINGE,
        reach=INTERCEPT_TOO,
        taken_for="a penalty on the weights alone: it penalizes the intercept",
    ),
    *units(
        SKLEARN,
        "sklearn.LinearSVR",
        l2=1 / (2 * C * n),
        loss=SQUARED,
        reach=INTERCEPT_TOO,
        when={"loss": ("squared_epsilon_insensitive",)},
        note="With epsilon=0, its default.",
        taken_for="a penalty on the weights alone: it penalizes the intercept",
    ),
    *units(SKLEARN, "sklearn.QuantileRegressor", l1=alpha, loss=PINBALL),
    *units(
        SKLEARN,
        "sklearn.MLPRegressor",
        l2=alpha / n,
        loss=SQUARED,
        when={"solver": ("lbfgs",)},
        note="With one output.",
        taken_for="alpha: it is divided by the samples, as Ridge's is",
    ),
    *units(
        SKLEARN,
        "sklearn.MLPRegressor",
        l2=alpha / batch_size,
        loss=SQUARED,
        when={"solver": ("sgd",)},
        note="With one output.",
        taken_for="what lbfgs has: it is divided by the batch, so that smaller batches penalize "
        "more",
    ),
    *_half_squared(CELER, "celer"),
    *units(CELER, "celer.GroupLasso", group=2 * alpha, loss=SQUARED, taken_for=NO_ROOT),
    *units(CELER, "celer.LogisticRegression", l1=1 / (C * n), loss=LOG),
    *_half_squared(SKGLM, "skglm"),
    *units(
        SKGLM,
        "skglm.GroupLasso",
        group=2 * alpha,
        loss=SQUARED,
        note="With weights=None.",
        taken_for=NO_ROOT,
    ),
    *units(SKGLM, "skglm.SparseLogisticRegression", l1=alpha, loss=LOG),
    *units(
        SKGLM,
        "skglm.MCPRegression",
        make=lambda strength, gamma: MCP(strength, gamma, factor=2.0),
        made_of=(alpha, setting("gamma")),
        says="MCP(alpha, gamma, factor=2)",
        loss=SQUARED,
        taken_for="MCP(2·alpha, gamma), which is flat from 2·alpha·gamma on",
    ),
    *units(
        ASGL,
        "asgl.Regressor",
        l1=lambda1,
        loss=SQUARED,
        when={"model": ("lm",), "penalization": ("lasso",)},
        taken_for="scikit-learn's Lasso: its squared error has no half",
    ),
    *units(
        ASGL,
        "asgl.Regressor",
        l2=lambda1,
        loss=SQUARED,
        when={"model": ("lm",), "penalization": ("ridge",)},
    ),
    *units(
        ASGL,
        "asgl.Regressor",
        group=lambda1,
        size_weighted=True,
        loss=SQUARED,
        when={"model": ("lm",), "penalization": ("gl",)},
    ),
    *units(
        ASGL,
        "asgl.Regressor",
        l1=lambda1 * mixed_by_alpha,
        group=lambda1 * (1 - mixed_by_alpha),
        size_weighted=True,
        loss=SQUARED,
        when={"model": ("lm",), "penalization": ("sgl",)},
    ),
    *units(
        ASGL,
        "asgl.Regressor",
        l1=lambda1,
        loss=LOG,
        when={"model": ("logit",), "penalization": ("lasso",)},
    ),
    *units(
        GROUP_LASSO,
        "group_lasso.GroupLasso",
        l1=4 * l1_reg,
        group=4 * group_reg,
        size_weighted=True,
        loss=SQUARED,
        when={"scale_reg": ("group_size",)},
        assumed=True,
        note="Its group −1 is free of group_reg, and not of l1_reg.",
        taken_for="l1_reg and group_reg, or twice these: it is four times",
    ),
    *units(
        GROUP_LASSO,
        "group_lasso.GroupLasso",
        l1=4 * l1_reg,
        group=4 * group_reg,
        loss=SQUARED,
        when={"scale_reg": ("none",)},
        note="Its group −1 is free of group_reg, and not of l1_reg.",
    ),
    *units(
        GROUP_LASSO,
        "group_lasso.GroupLasso",
        when={"scale_reg": ("inverse_group_size",)},
        why_not="its groups weigh 4·group_reg/√|g|, the less the larger they are: write a rule "
        "with a GroupLasso for each size.",
    ),
    *units(
        GROUP_LASSO,
        "group_lasso.LogisticGroupLasso",
        group=2 * group_reg,
        size_weighted=True,
        loss=LOG,
        note="W has a column per class, of two classes, too: a group is ‖W_g‖_F, and |g| counts "
        "its rows. Without l1_reg, which was not measured.",
    ),
    *units(
        GROUPYR,
        "groupyr.SGL",
        l1=2 * alpha * l1_ratio,
        group=2 * alpha * (1 - l1_ratio),
        size_weighted=True,
        loss=SQUARED,
        note="Its default is alpha=0.",
    ),
    *units(GROUPYR, "groupyr.LogisticSGL", l1=alpha, loss=LOG, note="With l1_ratio=1."),
]
