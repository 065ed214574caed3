"""penalize for Keras 3, on the TensorFlow, JAX and PyTorch backends."""

from penalize.compacting.report import Compacted
from penalize.keras.compacting.compacted import compact
from penalize.keras.conversion import from_keras, to_keras
from penalize.keras.plan import Plan, plan_on
from penalize.keras.regularize import regularize

__all__ = ["Compacted", "Plan", "compact", "from_keras", "plan_on", "regularize", "to_keras"]
