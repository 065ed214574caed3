"""What the layers of Flax NNX do with units, and how they are made smaller."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from penalize.compacting.wiring import Array, AxisUnits, ChainCut, ChainWiring, LinearMap


class ModuleCall(NamedTuple):
    """A layer that is called, and what is said of it."""

    layer: Any
    name: str
    wiring: ChainWiring
    shape: tuple[int, ...]
    """Of its output."""
    biases: bool
    """Whether it may be given a bias."""

    def weight(self, name: str) -> Array | None:
        """A weight in float64."""
        found = getattr(self.layer, name)
        return None if found is None else np.asarray(found[...]).astype(np.float64)

    def named(self, name: str) -> str:
        """A weight's name in a plan."""
        return f"{self.name}.{name}".lstrip(".")

    def map(self, kernel: Array, may_get_bias: bool = True, spread: str = "") -> LinearMap:
        """The layer as a linear map."""
        b = self.weight("bias")
        has = b is not None or (self.biases and may_get_bias)
        zeros = np.zeros(self.shape[-1])
        return LinearMap(
            self.named("kernel"),
            kernel,
            self.named("bias") if has else "",
            zeros if b is None else b,
            spread,
            math.prod(self.shape[:-1]),
        )

    def unknown(self, x: AxisUnits, why: str) -> AxisUnits:
        """What it makes where nothing that it reads may go."""
        self.wiring.keep(x.ids, why)
        return AxisUnits.plain(self.shape[-1])


def followed(call: ModuleCall, x: AxisUnits) -> AxisUnits:
    """The units behind a layer."""
    return _HANDLERS[type(call.layer)](call, x)


def _linear(call: ModuleCall, x: AxisUnits) -> AxisUnits:
    if call.layer.dot_general is not jax.lax.dot_general:
        return call.unknown(x, f"{call.name!r} has a dot_general of its own")
    kernel = call.weight("kernel")
    assert kernel is not None
    return call.wiring.maps(x, call.map(kernel))


def _convolution(call: ModuleCall, x: AxisUnits) -> AxisUnits:
    layer, kernel = call.layer, call.weight("kernel")
    assert kernel is not None
    if layer.conv_general_dilated is not jax.lax.conv_general_dilated or layer.mask is not None:
        return call.unknown(x, f"{call.name!r} has a mask, or a convolution of its own")
    pads = "is applied at a border of zeros, where it would be another" if _pads(layer) else ""
    groups = layer.feature_group_count
    if groups == 1:
        return call.wiring.maps(x, call.map(kernel, spread=pads))
    if groups != len(x.ids):
        return call.unknown(x, "a convolution of groups of channels reads it")
    each = kernel.reshape(*kernel.shape[:-2], groups, -1)
    made = call.wiring.each(x, call.map(each, may_get_bias=False, spread=pads))
    call.wiring.axis(call.named("kernel"), kernel.ndim - 1, made.ids)
    return made


def _pads(layer: Any) -> bool:
    """Whether a convolution sees zeros beside its input, or in it."""
    if any(d != 1 for d in np.ravel(layer.input_dilation)):
        return True
    if not isinstance(layer.padding, str):
        return any(np.ravel(layer.padding))
    if layer.padding == "SAME":
        return any(k > 1 for k in np.ravel(layer.kernel_size))
    return layer.padding not in ("VALID", "CIRCULAR", "REFLECT")


def _batch_norm(call: ModuleCall, x: AxisUnits) -> AxisUnits:
    layer = call.layer
    if layer.axis not in (-1, len(call.shape) - 1):
        return call.unknown(x, f"{call.name!r} has its channels on axis {layer.axis}")
    held = {k: w for k in ("scale", "bias", "mean", "var") if (w := call.weight(k)) is not None}
    scale = held.get("scale", np.ones(len(x.ids))) / np.sqrt(held["var"] + layer.epsilon)
    shift = held.get("bias", np.zeros(len(x.ids))) - held["mean"] * scale
    return call.wiring.scales(x, map(call.named, held), scale, shift)


_HANDLERS: dict[Any, Callable[[ModuleCall, AxisUnits], AxisUnits]] = {
    nnx.Linear: _linear,
    nnx.Conv: _convolution,
    nnx.BatchNorm: _batch_norm,
}


# --- a layer without what goes ------------------------------------------------------------------


def shrink(layer: Any, name: str, cut: ChainCut) -> None:
    """Give a layer what is left of its weights, and let it say the sizes that it has now."""
    bias = f"{name}.bias".lstrip(".")
    if bias in cut.offsets and layer.bias is None:
        zeros = jnp.zeros(len(cut.offsets[bias]), layer.kernel.dtype)
        layer.bias, layer.use_bias = nnx.Param(zeros), True
    for key in ("kernel", "bias", "scale", "mean", "var"):
        held = getattr(layer, key, None)
        if held is not None:
            w = np.asarray(held[...])
            held.set_value(jnp.asarray(cut.left_of(f"{name}.{key}".lstrip("."), w), held.dtype))
    if isinstance(layer, nnx.BatchNorm):
        layer.num_features = layer.mean.shape[0]
        return
    *_, inputs, outputs = layer.kernel.shape
    if isinstance(layer, nnx.Conv):
        if layer.feature_group_count > 1:
            each = layer.out_features // layer.feature_group_count
            if layer.feature_group_count == layer.in_features:
                layer.feature_group_count = outputs // each
        layer.kernel_shape = layer.kernel.shape
        inputs *= layer.feature_group_count
    layer.in_features, layer.out_features = inputs, outputs
