"""Weight decays of optimizers, and regularizers of frameworks."""

from __future__ import annotations

from typing import Any

from penalize.regularizers import Orthogonal
from penalize.units.formulas import SettingKind, setting
from penalize.units.settings import learning_rate, weight_decay
from penalize.units.unit import EVERYTHING, NOT_BIASES_OR_NORMS, NOT_NORMS, WHERE_GIVEN, Unit, units

TORCH, TORCHOPT, OPTAX = "PyTorch 2.13.0", "torchopt 0.7.3", "optax 0.2.8"
KERAS, TF_KERAS, TF = "Keras 3.15.1", "tf_keras 2.21.0", "TensorFlow 2.21.0"
PADDLE, MINDSPORE, MLX = "paddle 3.3.1", "mindspore 2.10.0", "mlx 0.32.4"
TINYGRAD, THINC, CHAINER, SONNET = "tinygrad 0.14.0", "thinc 9.1.1", "chainer 7.8.1", "sonnet 2.0.2"

TERM: dict[str, Any] = {"loss": "the loss as it is", "reach": WHERE_GIVEN}
HALVED = "weight_decay: its gradient is weight_decay·w, which is that of ½·weight_decay·Σw²"
WHATEVER = "what AdamW has: it is not times the learning rate"
RATIO = (
    "its trust ratio scales the step to the weight, so that the decay of a weight without a "
    "gradient is the same for any strength; what remains of it depends on the gradients."
)
DEFAULT = "Its default is {}, biases included."


def _in_gradient(package: str, names: str, **fields: Any) -> list[Unit]:
    """A decay that is added to the gradient."""
    found: dict[str, Any] = {"l2": weight_decay / 2, "mode": "gradient", "reach": EVERYTHING}
    return units(package, names, **{**found, **fields})


def _beside_step(package: str, names: str, **fields: Any) -> list[Unit]:
    """A decay beside the step, times the learning rate."""
    return _in_gradient(package, names, **{"mode": "decoupled", **fields})


def _refused(package: str, names: str, why_not: str) -> list[Unit]:
    return units(package, names, why_not=why_not)


eta = setting("eta", SettingKind.GIVEN, "the factor of the decay", 1.0)

OPTIMIZERS: list[Unit] = [
    *_in_gradient(
        TORCH,
        "torch.optim.SGD torch.optim.Adagrad torch.optim.Adadelta torch.optim.Adamax "
        "torch.optim.ASGD torch.optim.RMSprop",
        taken_for=HALVED,
    ),
    *_in_gradient(
        TORCH,
        "torch.optim.Adam torch.optim.NAdam torch.optim.RAdam",
        when={"decoupled_weight_decay": ("False",)},
        assumed=True,
        taken_for="what AdamW has: it is in the gradient, and divided by Adam's denominators",
    ),
    *_beside_step(
        TORCH,
        "torch.optim.Adam torch.optim.NAdam torch.optim.RAdam",
        when={"decoupled_weight_decay": ("True",)},
    ),
    *_beside_step(TORCH, "torch.optim.AdamW", note=DEFAULT.format(0.01)),
    *_beside_step(
        TORCH,
        "torch.optim.Adafactor",
        note="Its step is scaled by the norm that the weight had before the decay; a plan's decay "
        "comes before that.",
    ),
    *_beside_step(TORCH, "torch.optim.Muon", note="It takes matrices only; its default is 0.1."),
    *_beside_step(
        "transformers 5.23.0",
        "transformers.Trainer",
        reach=NOT_BIASES_OR_NORMS,
        note="It knows LayerNorm by its type, other norms by `norm` in their names: a BatchNorm "
        "called bn1 is decayed.",
        taken_for="a decay of kernels: embeddings have it, too",
    ),
    *_in_gradient(
        TORCHOPT,
        "torchopt.SGD torchopt.Adam torchopt.AdaGrad torchopt.Adadelta torchopt.Adamax "
        "torchopt.RMSProp torchopt.RAdam",
    ),
    *_beside_step(TORCHOPT, "torchopt.AdamW", note=DEFAULT.format(0.01)),
    *_beside_step(
        OPTAX,
        "optax.adamw optax.nadamw optax.adamaxw optax.contrib.sophia",
        note=DEFAULT.format("1e-4"),
        taken_for="a decay of kernels: without a mask it is of biases, too",
    ),
    *_beside_step(OPTAX, "optax.lion", note=DEFAULT.format("1e-3")),
    *_beside_step(OPTAX, "optax.adan optax.contrib.ademamix"),
    *_beside_step(
        OPTAX,
        "optax.adafactor",
        l2=setting("weight_decay_rate") / (2 * learning_rate),
        taken_for=WHATEVER,
    ),
    *_beside_step(
        OPTAX, "optax.contrib.cocob", l2=weight_decay / (2 * learning_rate), taken_for=WHATEVER
    ),
    *_refused(OPTAX, "optax.lamb optax.lars", RATIO),
    *_refused(
        OPTAX,
        "optax.novograd",
        "its decay is in the momentum, and ten times as strong in the long run as in the first "
        "step.",
    ),
    *_refused(
        OPTAX,
        "optax.contrib.muon",
        'it has two decays: with mode="decoupled" weight_decay is {where(lambda p: len(p.shape) '
        "== 2): L2.from_weight_decay(weight_decay)}, and all else has adam_weight_decay.",
    ),
    *_refused(
        OPTAX,
        "optax.contrib.schedule_free_adamw",
        "it decays the point at which it takes gradients, and not the average that it ends with.",
    ),
    *_beside_step(
        KERAS,
        "keras.SGD keras.Adam keras.Nadam keras.Adamax keras.Adagrad keras.Adadelta keras.RMSprop "
        "keras.Lion keras.Lamb keras.Adafactor",
        taken_for="an L2 in the gradient: it is decoupled in every optimizer",
    ),
    *_beside_step(KERAS, "keras.AdamW", note=DEFAULT.format(0.004)),
    *_refused(
        KERAS,
        "keras.Ftrl",
        "it computes each weight anew from sums of gradients, and so its weight_decay is forgotten "
        "in the same step.",
    ),
    *_refused(
        KERAS,
        "keras.Muon",
        "it has two decays: weight_decay is that of two-dimensional kernels, adam_weight_decay, "
        "0.004 unless told otherwise, that of all else.",
    ),
    *_refused(
        KERAS,
        "keras.ScheduleFreeAdamW",
        "it decays the point at which it takes gradients, and not the average that it ends with.",
    ),
    *_beside_step(
        TF_KERAS,
        "tf_keras.SGD tf_keras.Adam tf_keras.Nadam tf_keras.Adamax tf_keras.Adagrad "
        "tf_keras.Adadelta tf_keras.RMSprop",
    ),
    *_beside_step(TF_KERAS, "tf_keras.AdamW", note=DEFAULT.format(0.004)),
    *_in_gradient(
        PADDLE,
        "paddle.SGD paddle.Momentum paddle.ASGD paddle.RAdam paddle.Adam paddle.Adamax "
        "paddle.Adagrad paddle.NAdam paddle.RMSProp paddle.Adadelta",
        note="A float is L2Decay, biases included; a ParamAttr's regularizer stands in its place.",
        taken_for=HALVED,
    ),
    *_beside_step(
        PADDLE,
        "paddle.AdamW",
        note=DEFAULT.format(0.01) + " A ParamAttr's regularizer acts beside it.",
    ),
    *_refused(PADDLE, "paddle.Lamb", RATIO),
    *_in_gradient(
        MINDSPORE,
        "mindspore.SGD mindspore.Momentum mindspore.Adam mindspore.LazyAdam mindspore.AdamOffload "
        "mindspore.AdaMax mindspore.Rprop mindspore.Adagrad mindspore.RMSProp mindspore.Adadelta "
        "mindspore.ProximalAdagrad",
        reach=NOT_NORMS,
        note="What has `beta` or `gamma` in its name is exempt, as norms have; biases are not.",
        taken_for="a decay that passes over biases, too",
    ),
    *_beside_step(MINDSPORE, "mindspore.AdamWeightDecay", reach=NOT_NORMS),
    *_refused(
        MINDSPORE,
        "mindspore.ASGD",
        "beside weight_decay it has `lambd`, 1e-4 unless told otherwise, on everything.",
    ),
    *_in_gradient(MLX, "mlx.SGD"),
    *_beside_step(MLX, "mlx.Lion"),
    *_beside_step(MLX, "mlx.AdamW", note=DEFAULT.format(0.01)),
    *_refused(
        MLX, "mlx.Adafactor", "its decay is times a relative step of its own; lr is ignored."
    ),
    *_refused(MLX, "mlx.Muon", "its decay is in the gradient, which is orthogonalized after that."),
    *_in_gradient(TINYGRAD, "tinygrad.SGD"),
    *_beside_step(TINYGRAD, "tinygrad.AdamW", note=DEFAULT.format(0.01)),
    *_beside_step(TINYGRAD, "tinygrad.Muon", note="It takes matrices only; its default is 0.1."),
    *_refused(TINYGRAD, "tinygrad.LAMB", RATIO),
    *_refused(
        TINYGRAD,
        "tinygrad.LARS",
        "its decay is in the momentum, before a trust ratio that the decay has no part in.",
    ),
    *_beside_step(
        THINC,
        "thinc.Adam thinc.RAdam thinc.SGD",
        l2=setting("L2") / 2,
        when={"L2_is_weight_decay": ("True",)},
        assumed=True,
        taken_for="an L2 in the gradient, as its name says",
    ),
    *_in_gradient(
        THINC,
        "thinc.Adam thinc.RAdam thinc.SGD",
        l2=setting("L2") / 2,
        when={"L2_is_weight_decay": ("False",)},
    ),
    *_beside_step(
        CHAINER,
        "chainer.Adam",
        l2=setting("weight_decay_rate") * eta / (2 * learning_rate),
        taken_for=WHATEVER,
    ),
    *_beside_step(
        "TensorFlow 1.15, and TensorFlow Addons",
        "tf.contrib.opt.AdamWOptimizer tensorflow_addons.AdamW",
        l2=weight_decay / (2 * learning_rate),
        note="As documented: neither runs on today's TensorFlow.",
        taken_for=WHATEVER,
    ),
]

scale, rate = setting("scale"), setting("rate")
l1, l2 = setting("l1"), setting("l2")

TERMS: list[Unit] = [
    *units(
        TF,
        "tf.nn.l2_loss",
        l2=scale / 2,
        **TERM,
        note="scale · tf.nn.l2_loss(w).",
        taken_for="scale: it has a half",
    ),
    *units(
        "tf_slim 1.1.0",
        "tf.contrib.layers.l2_regularizer",
        l2=scale / 2,
        **TERM,
        taken_for="scale, which is Keras' L2: it has a half",
    ),
    *units("tf_slim 1.1.0", "tf.contrib.layers.l1_regularizer", l1=scale, **TERM),
    *units(
        "tf_slim 1.1.0",
        "tf.contrib.layers.l1_l2_regularizer",
        l1=setting("scale_l1"),
        l2=setting("scale_l2") / 2,
        **TERM,
    ),
    *units(KERAS, "keras.L1", l1=l1, **TERM),
    *units(KERAS, "keras.L2", l2=l2, **TERM, taken_for="l2/2: it has no half"),
    *units(KERAS, "keras.L1L2", l1=l1, l2=l2, **TERM),
    *units(
        KERAS,
        "keras.OrthogonalRegularizer",
        make=lambda factor: Orthogonal(factor, "rows"),
        made_of=(setting("factor"),),
        says='Orthogonal(factor, "rows")',
        when={"mode": ("rows",)},
        assumed=True,
        **TERM,
        note="PyTorch's kernels are transposed: swap the mode there.",
    ),
    *units(
        KERAS,
        "keras.OrthogonalRegularizer",
        make=lambda factor: Orthogonal(factor, "columns"),
        made_of=(setting("factor"),),
        says='Orthogonal(factor, "columns")',
        when={"mode": ("columns",)},
        **TERM,
    ),
    *units(SONNET, "sonnet.regularizers.L1", l1=scale, **TERM),
    *units(
        SONNET,
        "sonnet.regularizers.L2",
        l2=scale / 2,
        **TERM,
        taken_for="scale: it has a half",
    ),
    *units(
        CHAINER,
        "chainer.WeightDecay",
        l2=rate / 2,
        mode="gradient",
        reach=EVERYTHING,
        taken_for="a decay of kernels: the hook is on every parameter",
    ),
    *units(CHAINER, "chainer.Lasso", l1=rate, mode="gradient", reach=EVERYTHING),
    *units(
        PADDLE,
        "paddle.L2Decay",
        l2=setting("coeff") / 2,
        mode="gradient",
        reach=EVERYTHING,
        taken_for="coeff: it has a half",
    ),
    *units(PADDLE, "paddle.L1Decay", l1=setting("coeff"), mode="gradient", reach=EVERYTHING),
]
