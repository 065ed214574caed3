"""What a PyTorch parameter does, and which of its axes are outputs and inputs.

The owner's type decides first, then the parameter's name, then its shape. Whatever remains
doubtful is not called a kernel, so that no rule penalizes it unless somebody names it.
"""

from __future__ import annotations

import re

from torch import nn

from penalize.parameters import Role

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

# A class that calls itself a norm: LlamaRMSNorm, FrozenBatchNorm2d; not a
# "NormalizedDense" or a "NormedLinear".
_NORM_CLASS = re.compile(r"norm(?!ed|al(?!ization))", re.IGNORECASE)
# A class that calls itself an embedding: VocabParallelEmbedding, PerceiverEmbeddings.
_EMBEDDING_CLASS = re.compile(r"embed", re.IGNORECASE)
# The textbook's b, b1, b_2, b_hidden.
_BIAS_NAME = re.compile(r"b(_?\d+|_\w+)?")
_NORMED = {"norm", "norms", "layernorm", "rmsnorm", "batchnorm", "groupnorm", "ln", "bn"}
_SCALES = {"scale", "scales", "gain", "gamma", "beta", "temperature", "log"}
_EMBEDDED = {"emb", "embed", "embeds", "embedding", "embeddings", "token", "tokens"}
_EMBEDDED |= {"pos", "position", "positional"}


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
    words = set(re.findall(r"[A-Za-z]+", name.replace("_", " ").lower()))
    if words & {"bias", "biases"} or _BIAS_NAME.fullmatch(name):
        return Role.BIAS
    if issubclass(owner, _KERNEL_HOLDERS):
        return Role.KERNEL if shape is None or len(shape) >= 2 else Role.OTHER
    if _NORM_CLASS.search(owner.__name__) or words & _NORMED:
        return Role.NORM
    if words & _EMBEDDED or _EMBEDDING_CLASS.search(owner.__name__):
        return Role.EMBEDDING
    if words & _SCALES or shape is None or _is_vector(shape):
        return Role.OTHER
    return Role.KERNEL


def _is_vector(shape: tuple[int, ...]) -> bool:
    """One axis or none; or more than two, of which at most one is longer than 1, to broadcast."""
    return len(shape) < 2 or (len(shape) > 2 and sum(size > 1 for size in shape) < 2)


def axes_of(owner: nn.Module, ndim: int | None) -> tuple[int | None, int | None]:
    """The axes that index outputs and inputs; None where no single axis does.

    PyTorch's kernels are output-first; transposed convolutions, embeddings (whose rows are the
    inputs) and the ``Conv1D`` of transformers are input-first. In a convolution with several
    groups one of the two axes repeats per group, so it holds no single input or output. What the
    axes of other parameters with more than two mean is not known.
    """
    if ndim is not None and ndim < 2:
        return 0 if ndim else None, None
    grouped = getattr(owner, "groups", 1) != 1
    if isinstance(owner, _TRANSPOSED):
        return (None if grouped else 1), 0
    if isinstance(owner, nn.modules.conv._ConvNd):
        return 0, (None if grouped else 1)
    if isinstance(owner, nn.Bilinear):
        return 0, None
    if isinstance(owner, _EMBEDDINGS) or _is_transformers_conv1d(type(owner)):
        return 1, 0
    return (0, 1) if ndim is None or ndim == 2 else (None, None)


def _is_transformers_conv1d(owner: type) -> bool:
    return any(
        base.__name__ == "Conv1D" and base.__module__ == "transformers.pytorch_utils"
        for base in owner.__mro__
    )
