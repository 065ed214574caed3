"""The settings that formulas are of, and the losses that are beside them."""

from __future__ import annotations

from penalize.units.formulas import SettingKind, setting

SQUARED = "the mean squared error, without a half: `nn.MSELoss`"
LOG = "the mean log loss: `nn.BCEWithLogitsLoss`, `nn.CrossEntropyLoss`"
POISSON = "the mean of μ − y·log μ: `nn.PoissonNLLLoss`"
HINGE = "the mean squared hinge"
PINBALL = "the mean pinball loss"

alpha = setting("alpha")
lambda_ = setting("lambda_")
C = setting("C", SettingKind.INVERSE, "the inverse of a strength")
n = setting(
    "n",
    SettingKind.GIVEN,
    "how many samples it was fitted on; times the outputs where the loss is nn.MSELoss, which is "
    "the mean over these, too",
)
outputs = setting(
    "outputs", SettingKind.GIVEN, "how many outputs there are: nn.MSELoss is the mean over them"
)
batch_size = setting("batch_size", SettingKind.GIVEN, "the size of its batches")
sd_y = setting("sd_y", SettingKind.GIVEN, "the standard deviation of y (ddof 0)")
sd1_y = setting("sd_y", SettingKind.GIVEN, "the standard deviation of y (ddof 1)")
l1_ratio = setting("l1_ratio", SettingKind.RATIO, "the part of the L1, from 0 to 1")
l1_ratio_0 = setting("l1_ratio", SettingKind.RATIO, "the part of the L1, from 0 to 1", 0.0)
mixed_by_alpha = setting("alpha", SettingKind.RATIO, "the part of the L1, from 0 to 1")
weight_decay = setting("weight_decay")
learning_rate = setting(
    "learning_rate",
    SettingKind.GIVEN,
    "the learning rate of the optimizer that the plan is attached to: the decay is what it is "
    "whatever the rate, and a plan's is times the rate",
)
