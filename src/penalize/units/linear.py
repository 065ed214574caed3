"""Linear models and trees of other packages."""

from __future__ import annotations

from penalize.units.formulas import setting
from penalize.units.settings import (
    LOG,
    SQUARED,
    C,
    alpha,
    l1_ratio,
    lambda_,
    mixed_by_alpha,
    n,
    sd1_y,
    sd_y,
)
from penalize.units.unit import INTERCEPT_TOO, Unit, units

STATSMODELS, GLUM, ABESS = "statsmodels 0.15.0", "glum 3.4.1", "abess 0.4.11"
ADELIE, GLMNET, PYGLMNET = "adelie 1.1.52", "glmnet (python-glmnet) 2.6.1", "pyglmnet 1.1"
SNAPML, LIBLINEAR, H2O = "snapml 1.17.2", "liblinear-official 2.50.0", "h2o 3.46.0.12"
SPARK, XGBOOST = "pyspark 4.3.0", "xgboost 3.2.0"

L1_wt = setting("L1_wt", l1_ratio.kind, l1_ratio.means)
elastic_net_param = setting("elasticNetParam", l1_ratio.kind, l1_ratio.means)
regularizer, reg_param = setting("regularizer"), setting("regParam")
lmda = setting("lmda")

CONST = "a penalty on the weights alone: it penalizes the column of ones"
STANDARD = "On columns that are standardized (ddof {}), as it does{}: standardize the inputs."
BY_DEFAULT = " unless told otherwise"

LINEAR: list[Unit] = [
    *units(
        STATSMODELS,
        "statsmodels.OLS",
        l1=2 * alpha * L1_wt,
        l2=alpha * (1 - L1_wt),
        loss=SQUARED,
        reach=INTERCEPT_TOO,
        note="fit_regularized.",
        taken_for=CONST,
    ),
    *units(
        STATSMODELS,
        "statsmodels.GLM",
        l1=alpha * L1_wt,
        l2=alpha * (1 - L1_wt) / 2,
        loss=LOG,
        reach=INTERCEPT_TOO,
        when={"family": ("binomial",)},
        note="fit_regularized.",
        taken_for=CONST,
    ),
    *units(
        STATSMODELS,
        "statsmodels.Logit",
        l1=alpha / n,
        loss=LOG,
        reach=INTERCEPT_TOO,
        note="fit_regularized.",
        taken_for="what GLM's alpha is: its loss is a sum over the samples",
    ),
    *units(
        GLUM,
        "glum.GeneralizedLinearRegressor",
        l1=2 * alpha * l1_ratio,
        l2=alpha * (1 - l1_ratio),
        loss=SQUARED,
        when={"family": ("normal",)},
        assumed=True,
        note="Its default, alpha=None, is no penalty. Without scale_predictors.",
    ),
    *units(
        GLUM,
        "glum.GeneralizedLinearRegressor",
        l1=alpha * l1_ratio,
        l2=alpha * (1 - l1_ratio) / 2,
        loss="the mean log loss, or the mean of μ − y·log μ",
        when={"family": ("binomial", "poisson")},
        note="Without scale_predictors.",
    ),
    *units(
        ABESS,
        "abess.LinearRegression",
        l2=alpha / n,
        loss=SQUARED,
        note="On the support that it chose. " + STANDARD.format(0, ""),
        taken_for="scikit-learn's Ridge: its strength is times sd_j² on columns as they are",
    ),
    *units(
        ABESS,
        "abess.LogisticRegression",
        l2=alpha / n,
        loss=LOG,
        note="On the support that it chose. " + STANDARD.format(0, ""),
        taken_for="alpha/(2n), with the half of scikit-learn's",
    ),
    *units(
        ADELIE,
        "adelie.grpnet",
        group=2 * lmda,
        size_weighted=True,
        loss=SQUARED,
        when={"family": ("gaussian",)},
        note="With alpha=1, its default. With less, its ridge part weighs lmda·(1 − alpha)·√|g|: "
        "another L2 for each size.",
        taken_for="lmda: its squared error has a half",
    ),
    *units(
        ADELIE,
        "adelie.grpnet",
        l1=lmda,
        loss=LOG,
        when={"family": ("binomial",)},
        note="With groups of one.",
    ),
    *units(
        GLMNET,
        "glmnet.ElasticNet",
        l1=2 * lambda_ * mixed_by_alpha,
        l2=lambda_ * (1 - mixed_by_alpha) / sd_y,
        loss=SQUARED,
        note=STANDARD.format(0, BY_DEFAULT),
        taken_for="an L2 of lambda_·(1 − alpha): it is divided by sd(y), so that ten times y has a "
        "tenth of it",
    ),
    *units(
        GLMNET,
        "glmnet.LogitNet",
        l2=lambda_ / 2,
        loss=LOG,
        note="With alpha=0. " + STANDARD.format(0, BY_DEFAULT),
    ),
    *units(
        PYGLMNET,
        "pyglmnet.GLM",
        l2=setting("reg_lambda"),
        loss=SQUARED,
        when={"distr": ("gaussian",)},
        note="With alpha=0.",
    ),
    *units(
        "pycasso 2.0.1",
        "pycasso.Solver",
        l1=2 * lambda_,
        loss=SQUARED,
        when={"penalty": ("l1",)},
        assumed=True,
        note=STANDARD.format(1, ", always, also what is standardized with ddof 0"),
    ),
    *units(
        "sortedl1 1.11.3",
        "sortedl1.Slope",
        why_not="it is Σ 2·alpha·lam_i·|w|_(i), a norm of sorted weights, which penalize has not; "
        "with equal lam write L1(2·alpha·lam).",
    ),
    *units(
        SNAPML,
        "snapml.LinearRegression",
        l2=regularizer / n,
        loss=SQUARED,
        reach=INTERCEPT_TOO,
        when={"penalty": ("l2",)},
        assumed=True,
        taken_for="a penalty on the weights alone: it penalizes the intercept",
    ),
    *units(
        SNAPML,
        "snapml.LinearRegression",
        l1=2 * regularizer / n,
        loss=SQUARED,
        reach=INTERCEPT_TOO,
        when={"penalty": ("l1",)},
        taken_for="regularizer/n, as its L2 is",
    ),
    *units(
        SNAPML,
        "snapml.LogisticRegression",
        l2=regularizer / (2 * n),
        loss=LOG,
        reach=INTERCEPT_TOO,
    ),
    *units(
        LIBLINEAR,
        "liblinear.train",
        l2=1 / (2 * C * n),
        loss="the mean of its loss: log (0, 7), squared (11)",
        reach=INTERCEPT_TOO,
        when={"s": ("0", "7", "11")},
        note="The intercept that -B makes; with -R write the regularizer alone.",
        taken_for="1/C: its loss is a sum over the samples, and its L2 has a half",
    ),
    *units(
        LIBLINEAR,
        "liblinear.train",
        l1=1 / (C * n),
        loss=LOG,
        reach=INTERCEPT_TOO,
        when={"s": ("6",)},
        note="The intercept that -B makes; with -R write the regularizer alone.",
    ),
    *units(
        H2O,
        "h2o.H2OGeneralizedLinearEstimator",
        l1=2 * lambda_ * mixed_by_alpha,
        l2=lambda_ * (1 - mixed_by_alpha),
        loss=SQUARED,
        when={"family": ("gaussian",)},
        note=STANDARD.format(1, BY_DEFAULT),
        taken_for="the same on columns as they are",
    ),
    *units(
        H2O,
        "h2o.H2OGeneralizedLinearEstimator",
        l2=lambda_ / 2,
        loss=LOG,
        when={"family": ("binomial",)},
        note="With alpha=0. " + STANDARD.format(1, BY_DEFAULT),
    ),
    *units(
        SPARK,
        "pyspark.ml.LinearRegression",
        l1=2 * reg_param * elastic_net_param,
        l2=reg_param * (1 - elastic_net_param) / sd1_y,
        loss=SQUARED,
        when={"solver": ("l-bfgs",)},
        note=STANDARD.format(1, BY_DEFAULT),
        taken_for="an L2 of regParam·(1 − elasticNetParam): it is divided by sd(y)",
    ),
    *units(
        SPARK,
        "pyspark.ml.LinearRegression",
        l2=reg_param / sd_y,
        loss=SQUARED,
        when={"solver": ("normal",)},
        note="With elasticNetParam=0. " + STANDARD.format(1, BY_DEFAULT),
        taken_for="what l-bfgs finds: its sd(y) has ddof 0, that of l-bfgs ddof 1",
    ),
    *units(
        SPARK,
        "pyspark.ml.LogisticRegression",
        l1=reg_param * elastic_net_param,
        l2=reg_param * (1 - elastic_net_param) / 2,
        loss=LOG,
        note=STANDARD.format(1, BY_DEFAULT),
    ),
    *units(
        "vowpalwabbit 9.11.9",
        "vowpalwabbit.Workspace",
        l1=setting("l1"),
        l2=setting("l2") / 2,
        loss="the mean of (p − y)²",
        note="Nearly: with --sgd at a constant rate. An example whose update is zero does not "
        "decay at all.",
    ),
    *units(
        XGBOOST,
        "xgboost.gblinear",
        l1=2 * alpha,
        l2=lambda_,
        loss=SQUARED,
        when={"objective": ("reg:squarederror",)},
        taken_for="L1L2(alpha, lambda_): its squared error has a half, and its L2, too",
    ),
    *units(
        XGBOOST,
        "xgboost.gblinear",
        l2=lambda_ / 2,
        loss=LOG,
        when={"objective": ("binary:logistic",)},
        note="Without alpha, which was not measured.",
    ),
    *units(
        XGBOOST,
        "xgboost.gbtree",
        why_not="its strengths shrink the values of leaves, soft(S, alpha)/(n_leaf + lambda), "
        "beside a sum: a network has no leaves.",
    ),
    *units(
        "lightgbm 4.7.0",
        "lightgbm.train",
        why_not="its strengths shrink the values of leaves, soft(S, lambda_l1)/(n_leaf + "
        "lambda_l2): a network has no leaves.",
    ),
    *units(
        "catboost 1.2.10",
        "catboost.train",
        why_not="l2_leaf_reg shrinks the values of leaves, S/(W_leaf + l2·mean weight): a network "
        "has no leaves.",
    ),
]
