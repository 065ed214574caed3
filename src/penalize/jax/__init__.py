"""Penalties for JAX: plans over any pytree, and transforms that compose with optax; paths."""

# A module has the same name: once it is loaded it would stand in the function's place.
from penalize.jax.regularize import regularize as regularize

# The public names stand in __init__.pyi, and are loaded when they are first used.


def __getattr__(name: str) -> object:
    from penalize.lazy import attribute

    return attribute(__name__, name)


def __dir__() -> list[str]:
    from penalize.lazy import names

    return names(__name__)
