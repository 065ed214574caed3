"""A Keras model as a chain, where each layer reads what the one before made; and its copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from penalize.compacting.proof import Array
from penalize.errors import ModelError


class ChainStep(NamedTuple):
    """A layer, and its call in the model."""

    layer: Any
    tensor: Any
    """What it makes, as a symbolic tensor."""
    has_arguments: bool
    """Whether it is called with more than what it reads, such as ``training=True``."""


def chain_of(model: Any) -> list[ChainStep]:
    """The layers of a model without branches, from the one behind the input to the last.

    Raises:
        ModelError: it is no such model.
    """
    kind = type(model).__name__
    _check_class(model, kind)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ModelError(
            f"this {kind} has {len(model.inputs)} inputs and {len(model.outputs)} outputs",
            "compact follows chains of layers, with one of each",
        )
    found: list[ChainStep] = []
    tensor = model.outputs[0]
    while True:
        layer, index, _ = tensor._keras_history
        if isinstance(layer, keras.layers.InputLayer):
            return found[::-1]
        node = layer._inbound_nodes[index]
        if len(node.input_tensors) != 1 or len(node.output_tensors) != 1:
            raise ModelError(
                f"{layer.name!r} of this {kind}, a {type(layer).__name__}, has "
                f"{len(node.input_tensors)} inputs and {len(node.output_tensors)} outputs",
                "compact follows chains of layers; the parts beside a branch can be compacted as "
                "models of their own",
            )
        if any(step.layer is layer for step in found):
            raise ModelError(
                f"{layer.name!r} of this {kind} is used twice",
                "compact follows chains, in which each layer is used once",
            )
        arguments = node.arguments
        named = [x for x in arguments.kwargs.values() if x is not None and x is not False]
        found.append(ChainStep(layer, tensor, len(arguments.args) + len(named) > 1))
        tensor = node.input_tensors[0]


def _check_class(model: Any, kind: str) -> None:
    if not isinstance(model, keras.Model):
        raise ModelError(f"compact got a {kind}", "pass a keras.Model, and then its inputs")
    functional = type(keras.Model(inputs=(x := keras.Input((1,))), outputs=x))
    if not isinstance(model, keras.Sequential | functional) or type(model).call not in (
        keras.Sequential.call,
        functional.call,
    ):
        raise ModelError(
            f"what a {kind} does stands in its code, which compact does not read",
            "write it as keras.Sequential, or of layers as keras.Model(inputs, outputs)",
        )
    if not model.built or not model.outputs:
        raise ModelError(
            f"this {kind} is not built: its layers have no weights yet",
            "put a keras.Input first, or call the model once",
        )


def shapes_of(model: Any, steps: Sequence[ChainStep], example: Array) -> list[tuple[int, ...]]:
    """The shape of the example, and of what each layer makes of it."""
    through = keras.Model(model.inputs, [step.tensor for step in steps])
    try:
        made = through(keras.ops.convert_to_tensor(example), training=False)
    except Exception as error:
        raise ModelError(
            f"a {type(model).__name__} cannot be called on these inputs ({error})",
            "give inputs that model(inputs) takes",
        ) from error
    made = made if isinstance(made, list | tuple) else [made]
    return [example.shape, *(tuple(map(int, x.shape)) for x in made)]


# --- copies -------------------------------------------------------------------------------------


def cloned(
    model: Any, changed: dict[str, dict[str, Any]], values: dict[str, Array], dtype: str = ""
) -> Any:
    """A new model of the same layers.

    Args:
        model: the old one.
        changed: what is other in the configurations of layers, by name.
        values: of weights, by the names of layer and weight, where they are other.
        dtype: what all layers are to compute in; empty for their own.

    Raises:
        ModelError: a layer cannot be made anew from its configuration.
    """
    config = model.get_config()
    layers = {layer.name: layer for layer in model.layers}
    for entry in config["layers"]:
        entry.pop("build_config", None)  # it has the old shape
        layer = layers.get(entry["config"]["name"])
        if layer is not None:
            # Nothing that is drawn would be used; on JAX drawing compiles something for each shape.
            starts = dict.fromkeys(_starts(layer), "zeros")
            entry["config"] |= changed.get(layer.name, {}) | starts
    try:
        kinds = {type(layer).__name__: type(layer) for layer in model.layers}
        found = type(model).from_config(_typed(config, dtype) if dtype else config, kinds)
    except Exception as error:
        raise ModelError(
            f"this {type(model).__name__} cannot be made anew ({type(error).__name__}: {error})",
            "it, and each of its layers, has to be what from_config makes of its get_config",
        ) from error
    for old, new in zip(model.layers, found.layers, strict=True):
        _fill(old, new, values)
    return found


_STARTS = "_initializer"


def _starts(layer: Any) -> list[str]:
    """The arguments of a layer that are initializers, which it keeps as its own."""
    return [key for key in layer.get_config() if key.endswith(_STARTS) and key in vars(layer)]


def _typed(config: Any, dtype: str) -> Any:
    """A configuration with another type wherever a layer has one."""
    if isinstance(config, dict):
        found = {k: _typed(x, dtype) for k, x in config.items()}
        return found | ({"dtype": dtype} if _is_real(config.get("dtype")) else {})
    if isinstance(config, list | tuple):
        return type(config)(_typed(x, dtype) for x in config)
    return config


def _is_real(dtype: Any) -> bool:
    """Whether a type, or a policy as it is in a configuration, is one of real numbers."""
    name = dtype["config"].get("name", "") if isinstance(dtype, dict) else dtype
    return isinstance(name, str) and "float" in name


def _fill(old: Any, new: Any, values: dict[str, Array]) -> None:
    """Give a layer its weights, and the initializers that it was not made with."""
    for key in _starts(old):
        setattr(new, key, keras.initializers.get(old.get_config()[key]))
    by_name = {v.name: v for v in new.weights}
    if len(by_name) < len(new.weights) or not {v.name for v in old.weights} <= by_name.keys():
        new.set_weights(old.get_weights())
        return
    for v in old.weights:
        whole = f"{old.name}.{v.name}"
        by_name[v.name].assign(values.get(whole, np.asarray(keras.ops.convert_to_numpy(v))))
    for name in by_name.keys() - {v.name for v in old.weights}:
        by_name[name].assign(values[f"{old.name}.{name}"])
