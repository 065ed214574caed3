"""What each kind of Keras layer does with units: a row for each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import activations, layers

from penalize.compacting.wiring import Array, AxisUnits, ChainWiring, LinearMap
from penalize.errors import ModelError

Shape = tuple[int, ...]


class LayerCall(NamedTuple):
    """A layer in a chain, and what is said of it."""

    layer: Any
    wiring: ChainWiring
    before: Shape
    """The shape of what it reads, of the example."""
    after: Shape
    biases: bool
    """Whether it may be given a bias."""

    def weight(self, name: str) -> Array | None:
        """A weight in float64."""
        found = getattr(self.layer, name, None)
        if found is None:
            return None
        return np.asarray(keras.ops.convert_to_numpy(found)).astype(np.float64)

    def named(self, name: str) -> str:
        """A weight's name in a plan."""
        return f"{self.layer.name}.{name}"

    def map(
        self, kernel: str = "kernel", bias: str = "bias", *, by_channel: bool = False
    ) -> LinearMap:
        """The layer as a linear map, or as one for each channel."""
        w, b = self.weight(kernel), self.weight(bias) if bias else None
        assert w is not None
        each = w.shape[-1] * (w.shape[-2] if by_channel else 1)
        has = b is not None or (self.biases and not by_channel)
        pads = getattr(self.layer, "padding", "valid") != "valid" and max(w.shape[:-2]) > 1
        return LinearMap(
            self.named(kernel),
            w,
            self.named(bias) if has else "",
            np.zeros(each) if b is None else b,
            "is applied at a border of zeros, where it would be another" if pads else "",
            math.prod(self.after[:-1]),
        )

    def unknown(self, x: AxisUnits, why: str = "") -> AxisUnits:
        """What it makes where nothing that it reads may go."""
        kind = type(self.layer).__name__
        why = why or f"what {self.layer.name!r}, a {kind}, does with it is not known"
        self.wiring.keep(x.ids, why)
        return AxisUnits.plain(self.after[-1] if len(self.after) > 1 else 0)

    def activated(self, x: AxisUnits) -> AxisUnits:
        """After the layer's own activation."""
        f = getattr(self.layer, "activation", None)
        if f is None:
            return x
        if f not in _ELEMENTWISE:
            name = getattr(f, "__name__", type(f).__name__)
            return self.unknown(x, f"{name} of {self.layer.name!r} may take all of them together")
        return self.of_each(x, f)

    def of_each(self, x: AxisUnits, f: Callable[[Any], Any]) -> AxisUnits:
        """After a function of one element."""
        dtype = self.layer.variable_dtype

        def computed(c: Array) -> Array:
            made = keras.ops.convert_to_numpy(f(keras.ops.convert_to_tensor(c, dtype=dtype)))
            return np.asarray(made).astype(np.float64)

        return x.mapped(computed)


_ELEMENTWISE = [
    getattr(activations, name)
    for name in (
        *("celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu"),
        *("hard_tanh", "leaky_relu", "linear", "log_sigmoid", "mish", "relu", "relu6", "selu"),
        *("sigmoid", "silu", "soft_shrink", "softplus", "softsign", "sparse_plus"),
        *("sparse_sigmoid", "squareplus", "tanh", "tanh_shrink"),
    )
]


def followed(call: LayerCall, x: AxisUnits, has_arguments: bool) -> AxisUnits:
    """The units behind a layer."""
    layer = call.layer
    if getattr(layer, "data_format", None) == "channels_first":
        raise ModelError(
            f"{layer.name!r}, a {type(layer).__name__}, has its channels first",
            'compact follows models with data_format="channels_last"',
        )
    is_other = getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None)
    handler = None if has_arguments or is_other else _HANDLERS.get(type(layer))
    return call.unknown(x) if handler is None else handler(call, x)


def _dense(call: LayerCall, x: AxisUnits) -> AxisUnits:
    return call.activated(call.wiring.maps(x, call.map()))


def _convolution(call: LayerCall, x: AxisUnits) -> AxisUnits:
    if call.layer.groups != 1:
        return call.unknown(x, "a convolution of groups of channels reads it")
    return _dense(call, x)


def _depthwise(call: LayerCall, x: AxisUnits) -> AxisUnits:
    return call.activated(_by_channel(call, x, call.map(by_channel=True)))


def _by_channel(call: LayerCall, x: AxisUnits, layer: LinearMap) -> AxisUnits:
    call.wiring.axis(layer.weight, layer.kernel.ndim - 2, x.ids)
    return call.wiring.each(x, layer)


def _separable(call: LayerCall, x: AxisUnits) -> AxisUnits:
    x = _by_channel(call, x, call.map("depthwise_kernel", "", by_channel=True))
    return call.activated(call.wiring.maps(x, call.map("pointwise_kernel")))


def _batch_norm(call: LayerCall, x: AxisUnits) -> AxisUnits:
    layer = call.layer
    if layer.axis not in (-1, len(call.before) - 1):
        return call.unknown(x, f"{layer.name!r} has its channels on axis {layer.axis}")
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    held = {name: w for name in names if (w := call.weight(name)) is not None}
    scale = held.get("gamma", np.ones(len(x.ids))) / np.sqrt(
        held["moving_variance"] + layer.epsilon
    )
    shift = held.get("beta", np.zeros(len(x.ids))) - held["moving_mean"] * scale
    return call.wiring.scales(x, map(call.named, held), scale, shift)


def _prelu(call: LayerCall, x: AxisUnits) -> AxisUnits:
    alpha = call.weight("alpha")
    if alpha is None or alpha.size != alpha.shape[-1]:
        return call.unknown(x, f"{call.layer.name!r} has a slope for each place")
    call.wiring.axis(call.named("alpha"), alpha.ndim - 1, x.ids)
    c = x.constant
    return x.with_constant(np.where(c > 0, c, alpha.ravel() * c))


def _layer_of_each(call: LayerCall, x: AxisUnits) -> AxisUnits:
    return call.of_each(x, call.layer)


def _same(_: LayerCall, x: AxisUnits) -> AxisUnits:
    return x


def _flatten(call: LayerCall, x: AxisUnits) -> AxisUnits:
    return x.tiled(math.prod(call.before[1:-1]))


def _average(call: LayerCall, x: AxisUnits) -> AxisUnits:
    if call.layer.padding == "valid":
        return x
    return call.wiring.pads(x, f"{call.layer.name!r} takes means at a border of zeros")


def _padding(call: LayerCall, x: AxisUnits) -> AxisUnits:
    return call.wiring.pads(x, f"it is a constant, not 0, and {call.layer.name!r} adds zeros to it")


def _kinds(*names: str, dimensions: str = "") -> list[Any]:
    found = [f"{name}{d}D" for name in names for d in dimensions] if dimensions else names
    return [getattr(layers, name) for name in found]


_HANDLERS: dict[Any, Callable[[LayerCall, AxisUnits], AxisUnits]] = {
    layers.Dense: _dense,
    **dict.fromkeys(_kinds("Conv", dimensions="123"), _convolution),
    **dict.fromkeys(_kinds("DepthwiseConv", dimensions="12"), _depthwise),
    **dict.fromkeys(_kinds("SeparableConv", dimensions="12"), _separable),
    layers.BatchNormalization: _batch_norm,
    layers.PReLU: _prelu,
    layers.Activation: LayerCall.activated,
    **dict.fromkeys(_kinds("ReLU", "LeakyReLU", "ELU"), _layer_of_each),
    **dict.fromkeys(_kinds("Dropout", "GaussianDropout", "GaussianNoise", "AlphaDropout"), _same),
    **dict.fromkeys(_kinds("Identity", "ActivityRegularization"), _same),
    **dict.fromkeys(_kinds("SpatialDropout", "MaxPooling", "Cropping", dimensions="123"), _same),
    **dict.fromkeys(_kinds("GlobalMaxPooling", "GlobalAveragePooling", dimensions="123"), _same),
    **dict.fromkeys(_kinds("UpSampling", dimensions="123"), _same),
    layers.Flatten: _flatten,
    **dict.fromkeys(_kinds("AveragePooling", dimensions="123"), _average),
    **dict.fromkeys(_kinds("ZeroPadding", dimensions="123"), _padding),
}
