"""What a parameter does, as far as names and shapes tell. Wings look at types first.

Whatever remains doubtful is not called a kernel, so that no rule penalizes it unless somebody
names it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache

from penalize.parameters import Role

# An owner that calls itself a norm: LlamaRMSNorm, FrozenBatchNorm2d, batch_normalization; not a
# "NormalizedDense" or a "NormedLinear".
_NORM_OWNER = re.compile(r"norm(?!ed|al(?!ization))", re.IGNORECASE)
# An owner that calls itself an embedding: VocabParallelEmbedding, PerceiverEmbeddings.
_EMBEDDING_OWNER = re.compile(r"embed", re.IGNORECASE)
# What comes after it, where it is only mentioned: LayerNormLSTMCell, WeightNormLinear.
_MENTIONED_BY = re.compile(
    r"linear|dense|lstm|gru|rnn|cell|conv|classifier|attention|attn|mlp|ffn|proj|head",
    re.IGNORECASE,
)
# An embedding of what is no index but a vector, by a kernel: PatchEmbed, ConvEmbedding.
_EMBEDS_VECTORS = re.compile(r"patch|conv|linear|proj", re.IGNORECASE)
# The textbook's b, b1, b_2, b_hidden.
_BIAS_NAME = re.compile(r"b(_?\d+|_\w+)?")
# What holds a matrix of vectors, or a state, that is learned for itself: DETR's queries, prompts,
# Perceiver's latents, h0; Mamba's D.
_STATE_NAME = re.compile(r"[hc]_?0|D")
_STATES = {"query", "queries", "prompt", "prompts", "latent", "latents", "ctx", "slot", "slots"}
_STATES |= {"anchor", "anchors", "pointer", "state", "states", "initial", "init", "att"}
_STATES |= {"codebook", "codebooks", "codevectors"}
_NORMED = {"norm", "norms", "layernorm", "rmsnorm", "batchnorm", "groupnorm", "ln", "bn"}
_SCALES = {"scale", "scales", "gain", "gamma", "beta", "temperature", "log", "translate"}
_EMBEDDED = {"emb", "embed", "embeds", "embedding", "embeddings", "token", "tokens"}
_EMBEDDED |= {"pos", "position", "positions", "positional"}
# What a kernel alone is called, whatever holds it.
_KERNELS = {"kernel", "kernels", "ih", "hh"}
# With one of these it is a kernel that belongs to a query, a state, …: query_weight, init_proj.
_WEIGHTS = _KERNELS | {"weight", "weights", "w", "proj", "projection", "linear", "dense", "conv"}


_PRECEDENCE = (Role.EMBEDDING, Role.NORM, Role.BIAS, Role.OTHER, Role.KERNEL)


def role_of_ties(roles: Collection[Role]) -> Role:
    """What a tied parameter is called where its owners disagree: the role penalized least."""
    return next(role for role in _PRECEDENCE if role in roles)


def is_norm(owner: str) -> bool:
    """Whether a module, layer or scope calls itself a norm, and does not only mention one."""
    return _calls_itself(_NORM_OWNER, owner)


def _calls_itself(kind: re.Pattern[str], owner: str) -> bool:
    *_, last = [None, *kind.finditer(owner)]
    return last is not None and not _MENTIONED_BY.search(owner, last.end())


@lru_cache(maxsize=4096)
def role_by_name(
    name: str, shape: tuple[int, ...] | None, owner: str = "", *, holds_kernels: bool = False
) -> Role:
    """The role of a parameter.

    Args:
        name: the parameter's own name, without a path.
        shape: None for a lazy parameter.
        owner: what the module, layer or scope that holds it is called.
        holds_kernels: whether the owner is of a type whose matrices are kernels.
    """
    words = set(re.findall(r"[A-Za-z]+", name.replace("_", " ").lower()))
    if words & {"bias", "biases"} or _BIAS_NAME.fullmatch(name):
        return Role.BIAS
    if holds_kernels:
        return Role.KERNEL if shape is None or len(shape) >= 2 else Role.OTHER
    is_matrix = shape is not None and sum(size > 1 for size in shape) >= 2
    if is_matrix and words & _KERNELS and not words & (_NORMED | _EMBEDDED | _SCALES):
        return Role.KERNEL
    mentioned = bool(_NORM_OWNER.search(owner)) and not is_matrix
    if is_norm(owner) or mentioned or words & _NORMED:
        return Role.NORM
    if words & _EMBEDDED or _is_embedding(owner, is_matrix=is_matrix):
        return Role.EMBEDDING
    if words & _SCALES or shape is None or _is_vector(shape):
        return Role.OTHER
    if _STATE_NAME.fullmatch(name) or (words & _STATES and not words & _WEIGHTS):
        return Role.OTHER
    return Role.KERNEL


def _is_embedding(owner: str, *, is_matrix: bool) -> bool:
    if not is_matrix:
        return bool(_EMBEDDING_OWNER.search(owner))
    return _calls_itself(_EMBEDDING_OWNER, owner) and not _EMBEDS_VECTORS.search(owner)


def _is_vector(shape: tuple[int, ...]) -> bool:
    """Whether a shape is a vector's: of one axis at most; or of three and more, to broadcast, one
    of which may be longer than 1.
    """
    return len(shape) < 2 or (len(shape) > 2 and sum(size > 1 for size in shape) < 2)
