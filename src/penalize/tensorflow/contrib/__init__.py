"""What ``tf.contrib`` was, as far as regularization goes, on today's TensorFlow."""

from penalize.tensorflow.contrib import layers

__all__ = ["layers"]
