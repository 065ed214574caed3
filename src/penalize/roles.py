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
# The textbook's b, b1, b_2, b_hidden.
_BIAS_NAME = re.compile(r"b(_?\d+|_\w+)?")
_NORMED = {"norm", "norms", "layernorm", "rmsnorm", "batchnorm", "groupnorm", "ln", "bn"}
_SCALES = {"scale", "scales", "gain", "gamma", "beta", "temperature", "log"}
_EMBEDDED = {"emb", "embed", "embeds", "embedding", "embeddings", "token", "tokens"}
_EMBEDDED |= {"pos", "position", "positional"}


_PRECEDENCE = (Role.EMBEDDING, Role.NORM, Role.BIAS, Role.OTHER, Role.KERNEL)


def role_of_ties(roles: Collection[Role]) -> Role:
    """What a tied parameter is called where its owners disagree: the role penalized least."""
    return next(role for role in _PRECEDENCE if role in roles)


def is_norm(owner: str) -> bool:
    """Whether a module, layer or scope calls itself a norm."""
    return bool(_NORM_OWNER.search(owner))


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
    if is_norm(owner) or words & _NORMED:
        return Role.NORM
    if words & _EMBEDDED or _EMBEDDING_OWNER.search(owner):
        return Role.EMBEDDING
    if words & _SCALES or shape is None or _is_vector(shape):
        return Role.OTHER
    return Role.KERNEL


def _is_vector(shape: tuple[int, ...]) -> bool:
    """Whether a shape is a vector's: of one axis at most; or of three and more, to broadcast, one
    of which may be longer than 1.
    """
    return len(shape) < 2 or (len(shape) > 2 and sum(size > 1 for size in shape) < 2)
