"""What ``tf.contrib`` was, as far as it is about regularization."""

from penalize.torch.tf1.contrib import layers

__all__ = ["layers"]
