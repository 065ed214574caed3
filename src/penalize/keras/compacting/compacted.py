"""A Keras model without its dead units, that gives the same answers."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from typing import Any

import keras
import numpy as np

from penalize.compacting.proof import EPS, Array, why_not_equal
from penalize.compacting.report import Compacted, why_not_smaller
from penalize.compacting.wiring import AxisUnits, ChainCut, ChainWiring
from penalize.errors import CompactError, NothingToCutWarning
from penalize.keras.compacting.chain import chain_of, cloned, shapes_of
from penalize.keras.compacting.layers import LayerCall, followed


def compact(model: Any, inputs: Any, *, biases: bool = False) -> Compacted:
    """A smaller model with the same outputs: without units that are constant, or not read.

    As :func:`penalize.torch.compact`, for models that are a chain: each layer reads what the one
    before it made. A unit may go if its incoming weights are all zero, or the scale of its batch
    norm is, so that it is the same number c on every finite input, or if all of its outgoing
    weights are. What c added to the next layer is put into the bias of that. Where that cannot be
    exact the unit stays, and the table says why: so it is before a layer of which nothing is known,
    a normalization over units or a layer of your own, which is copied as it is.

    Dense layers are followed, convolutions (separable and depthwise ones too), batch norm, pooling,
    flattening, dropout, padding and functions of one element. Outputs, of training=False, are equal
    to rounding: that is measured on the example and on random inputs, in the model's own types, and
    on TensorFlow in float64 (to which Keras does not keep on JAX and PyTorch), before anything is
    returned.

    Args:
        model: a ``keras.Sequential``, or a ``keras.Model(inputs, outputs)`` that is a chain. It is
            left as it is.
        inputs: an array to call it with. A small batch will do.
        biases: whether layers without a bias may be given one, to hold what constants add.

    Returns:
        The smaller model as ``.model``, of the same classes, and what each layer lost. It is not
        compiled. What is penalized in the loss stays so, as in a clone; other plans are made anew.

    Raises:
        ModelError: the model is no chain, is not built, or cannot be cloned.
        CompactError: the outputs would differ: nothing is returned.

    Warns:
        NothingToCutWarning: no unit may go.
    """
    steps = chain_of(model)
    example = np.asarray(keras.ops.convert_to_numpy(inputs))
    widest = "float64" if keras.backend.result_type("float64") == "float64" else "float32"
    is_wider = EPS[widest] < _eps(model)
    wide = cloned(model, {}, {}, widest) if is_wider else model
    cut = _decided(wide, example, biases)
    given = {step.layer.name for step in steps if _gets_a_bias(step.layer, cut)}
    smaller, why = _smaller(model, cut, given), ""
    if is_wider and cut.indices:
        narrow = _smaller(wide, cut, given)
        why = why_not_equal(_run(wide), _run(narrow), [example], EPS[widest])
    if cut.indices and not why:
        why = why_not_equal(_run(model), _run(smaller), [example], _eps(model), is_wider)
    if why:
        raise CompactError(type(model).__name__, why)
    if not cut.indices:
        warnings.warn(_why_not_smaller(model, cut), NothingToCutWarning, stacklevel=2)
    counts = model.count_params(), smaller.count_params()
    return Compacted(cut.rows, smaller, counts, cut.operations, cut.indices)


def _eps(model: Any) -> float:
    """Rounding in the narrowest type that a model's layers compute in."""
    return max(EPS.get(layer.compute_dtype, EPS["bfloat16"]) for layer in model.layers)


def _decided(model: Any, example: Array, biases: bool) -> ChainCut:
    wiring, steps = ChainWiring(), chain_of(model)
    shapes = shapes_of(model, steps, example)
    x = AxisUnits.plain(example.shape[-1])
    for step, before, after in zip(steps, shapes, shapes[1:], strict=False):
        x = followed(LayerCall(step.layer, wiring, before, after, biases), x, step.has_arguments)
    wiring.keep(x.ids, "it is an output of the model")
    return wiring.decided()


def _gets_a_bias(layer: Any, cut: ChainCut) -> bool:
    return f"{layer.name}.bias" in cut.offsets and layer.bias is None


def _smaller(model: Any, cut: ChainCut, given: Collection[str]) -> Any:
    """The model without what goes.

    Args:
        model: the model.
        cut: what goes.
        given: the layers that are given a bias.
    """
    changed: dict[str, dict[str, Any]] = {}
    values: dict[str, Array] = {}
    for layer in model.layers:
        for v in layer.weights:
            name = f"{layer.name}.{v.name}"
            values[name] = cut.left_of(name, np.asarray(keras.ops.convert_to_numpy(v)))
        name = f"{layer.name}.bias"
        if layer.name in given:
            values[name] = cut.left_of(name, np.zeros(len(cut.offsets[name]), layer.variable_dtype))
            changed[layer.name] = {"use_bias": True}
        for size, weight in (
            ("units", "kernel"),
            ("filters", "kernel"),
            ("filters", "pointwise_kernel"),
        ):
            made = values.get(name := f"{layer.name}.{weight}")
            if made is not None and (name, made.ndim - 1) in cut.indices and hasattr(layer, size):
                changed.setdefault(layer.name, {})[size] = made.shape[-1]
    return cloned(model, changed, values)


def _run(model: Any) -> Any:
    def outputs(inputs: Sequence[Array]) -> list[Array]:
        made = model(keras.ops.convert_to_tensor(inputs[0]), training=False)
        return [np.asarray(keras.ops.convert_to_numpy(made))]

    return outputs


def _why_not_smaller(model: Any, cut: ChainCut) -> str:
    weights = [np.abs(keras.ops.convert_to_numpy(v)) for v in model.trainable_weights]
    zero = sum(int((w == 0).sum()) for w in weights)
    small = sum(int(((w != 0) & (w < 1e-3 * w.max())).sum()) for w in weights if w.size)
    return why_not_smaller(type(model).__name__, cut.rows, zero, small)
