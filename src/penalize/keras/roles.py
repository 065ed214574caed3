"""What a Keras variable does, and which of its axes are outputs and inputs.

The layer's type decides first, then the variable's name, then its shape.
"""

from __future__ import annotations

from typing import Any

from keras import layers

from penalize.parameters import Role
from penalize.roles import role_by_name


def _types(*names: str) -> tuple[Any, ...]:
    """The layers of these names, as far as this version of Keras has them."""
    return tuple(getattr(layers, name) for name in names if hasattr(layers, name))


_NORMS = _types(
    "BatchNormalization", "LayerNormalization", "GroupNormalization", "RMSNormalization"
)
_TRANSPOSED = _types("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
_DEPTHWISE = _types("DepthwiseConv1D", "DepthwiseConv2D")
_SEPARABLE = _types("SeparableConv1D", "SeparableConv2D")
_CONVOLUTIONS = _types("Conv1D", "Conv2D", "Conv3D")
_CELLS = _types("SimpleRNNCell", "LSTMCell", "GRUCell")
_KERNEL_HOLDERS = (
    *_types("Dense", "EinsumDense"),
    *_CONVOLUTIONS,
    *_TRANSPOSED,
    *_DEPTHWISE,
    *_SEPARABLE,
    *_CELLS,
)

LORA = "lora_"
"""How Keras begins the names of the factors that ``enable_lora`` makes."""


def role_of(owner: type, name: str, shape: tuple[int, ...]) -> Role:
    """The role of the variable ``name`` of a layer of type ``owner``."""
    if name.startswith(LORA):
        return Role.OTHER  # a factor of the change of a kernel or embedding, not one itself
    if issubclass(owner, _NORMS):
        return Role.NORM
    if issubclass(owner, layers.Embedding):
        return Role.EMBEDDING
    if issubclass(owner, layers.PReLU):
        return Role.OTHER
    holds_kernels = issubclass(owner, _KERNEL_HOLDERS)
    return role_by_name(name, shape, owner.__name__, holds_kernels=holds_kernels)


def axes_of(owner: Any, name: str, ndim: int) -> tuple[int | None, int | None]:
    """The axes that index outputs and inputs; None where no single axis does.

    Keras' kernels are output-last; those of transposed convolutions have the outputs before the
    inputs, and in an embedding the rows are the inputs. In a convolution with several groups, or
    with a kernel per channel, one of the two axes repeats, so it holds no single input or output.
    What the axes of other variables with more than two mean is not known.
    """
    if ndim < 2:
        return 0 if ndim else None, None
    last, before = ndim - 1, ndim - 2
    if name.startswith(LORA):
        return None, None
    if isinstance(owner, _TRANSPOSED):
        return before, last
    if isinstance(owner, _DEPTHWISE) or name == "depthwise_kernel":
        return None, before
    if isinstance(owner, _CONVOLUTIONS):
        return last, (before if owner.groups == 1 else None)
    if isinstance(owner, layers.EinsumDense):
        return _axes_of_einsum(owner.equation)
    if ndim == 2 or name == "pointwise_kernel" or "ConvLSTM" in type(owner).__name__:
        return last, before
    return None, None


def _axes_of_einsum(equation: str) -> tuple[int | None, int | None]:
    """``"abc,cde->abde"``: the kernel's axes that only the output has, and only the input has."""
    operands, _, outputs = equation.replace("...", "").replace(" ", "").partition("->")
    inputs, _, kernel = operands.partition(",")
    made = [axis for axis, letter in enumerate(kernel) if letter not in inputs]
    summed = [axis for axis, letter in enumerate(kernel) if letter not in outputs]
    return _only(made), _only(summed)


def _only(axes: list[int]) -> int | None:
    return axes[0] if len(axes) == 1 else None
