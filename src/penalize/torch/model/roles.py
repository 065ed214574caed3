"""What a PyTorch parameter does, and which of its axes are outputs and inputs.

The owner's type decides first, then the parameter's name, then its shape.
"""

from __future__ import annotations

from functools import lru_cache

from torch import nn

from penalize.parameters import Role
from penalize.roles import role_by_name

_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_KERNEL_HOLDERS = (
    nn.Linear,
    nn.Bilinear,
    nn.modules.conv._ConvNd,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def role_of(owner: type[nn.Module], name: str, shape: tuple[int, ...] | None) -> Role:
    """The role of the parameter ``name`` of a module of type ``owner``.

    Args:
        owner: the module's type.
        name: the parameter's own name, without a path.
        shape: None for a lazy parameter.
    """
    if issubclass(owner, _NORMS):
        return Role.NORM
    if issubclass(owner, _EMBEDDINGS):
        return Role.EMBEDDING
    holds_kernels = issubclass(owner, _KERNEL_HOLDERS)
    return role_by_name(name, shape, owner.__name__, holds_kernels=holds_kernels)


def axes_of(owner: nn.Module, ndim: int | None) -> tuple[int | None, int | None]:
    """The axes that index outputs and inputs; None where no single axis does.

    PyTorch's kernels are output-first; transposed convolutions, embeddings (whose rows are the
    inputs) and the ``Conv1D`` of transformers are input-first. In a convolution with several
    groups one of the two axes repeats per group, so it holds no single input or output. What the
    axes of other parameters with more than two mean is not known.

    A class whose kernels are laid out as TensorFlow's, outputs on the last axis and inputs on the
    one before, says so by an attribute ``_penalize_output_last = True``.
    """
    if ndim is not None and ndim < 2:
        return 0 if ndim else None, None
    if ndim is not None and getattr(type(owner), "_penalize_output_last", False):
        return ndim - 1, ndim - 2
    if isinstance(owner, nn.modules.conv._ConvNd):
        repeated = None if owner.groups != 1 else 1
        return (repeated, 0) if isinstance(owner, _TRANSPOSED) else (0, repeated)
    if isinstance(owner, nn.Bilinear):
        return 0, None
    if isinstance(owner, _EMBEDDINGS) or _is_transformers_conv1d(type(owner).__mro__):
        return 1, 0
    return (0, 1) if ndim is None or ndim == 2 else (None, None)


@lru_cache(maxsize=128)  # bounded: it keeps the classes alive
def _is_transformers_conv1d(lineage: tuple[type, ...]) -> bool:
    return any(
        base.__name__ == "Conv1D" and base.__module__ == "transformers.pytorch_utils"
        for base in lineage
    )
