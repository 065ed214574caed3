"""Penalties for JAX: plans over any pytree, and transforms that compose with optax."""

from penalize.compacting.report import Compacted
from penalize.jax.compacting.compacted import compact
from penalize.jax.plan import Plan
from penalize.jax.regularize import regularize

__all__ = ["Compacted", "Plan", "compact", "regularize"]
