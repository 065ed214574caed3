"""Penalties for JAX: plans over any pytree, and transforms that compose with optax."""

from penalize.jax.plan import Plan
from penalize.jax.regularize import regularize

__all__ = ["Plan", "regularize"]
