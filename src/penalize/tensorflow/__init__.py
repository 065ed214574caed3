"""penalize for TensorFlow: the collection of TF 1 graphs put to use, and plans for TF 1 and TF 2.

``penalize.tensorflow.contrib.layers`` has the regularizers that ``tf.contrib`` had.
"""

from penalize.tensorflow import contrib
from penalize.tensorflow.audit import audit
from penalize.tensorflow.optimizer import RegularizedOptimizer, regularized
from penalize.tensorflow.plan import Plan
from penalize.tensorflow.regularize import regularize

__all__ = ["Plan", "RegularizedOptimizer", "audit", "contrib", "regularize", "regularized"]
