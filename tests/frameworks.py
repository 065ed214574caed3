"""How each framework makes an array from float64 NumPy, and gives it back.

Frameworks are imported when they are first used, so that a test of one does not load the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Framework(NamedTuple):
    make: Callable[[np.ndarray, str], Any]
    """(values, dtype name) → array."""

    back: Callable[[Any], np.ndarray]
    gradient: Callable[[Callable[[Any], Any], Any], Any]
    """(scalar function, array) → its gradient by the framework's own differentiation."""


def _torch_make(w: np.ndarray, dtype: str) -> Any:
    import torch

    return torch.tensor(w).to(getattr(torch, dtype))


def _torch_gradient(f: Callable[[Any], Any], w: Any) -> Any:
    w = w.detach().requires_grad_()
    f(w).backward()
    return w.grad


def _jax_make(w: np.ndarray, dtype: str) -> Any:
    import jax.numpy as jnp

    return jnp.asarray(w, dtype=dtype)


def _jax_gradient(f: Callable[[Any], Any], w: Any) -> Any:
    import jax

    return jax.grad(f)(w)


def _tensorflow_make(w: np.ndarray, dtype: str) -> Any:
    import tensorflow as tf

    return tf.cast(tf.constant(w), dtype)


def _tensorflow_gradient(f: Callable[[Any], Any], w: Any) -> Any:
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(w)
        value = f(w)
    return tape.gradient(value, w)


def _plain(w: Any) -> np.ndarray:
    return np.asarray(w).astype(np.float64)


FRAMEWORKS = {
    "torch": Framework(_torch_make, lambda w: w.detach().double().numpy(), _torch_gradient),
    "jax": Framework(_jax_make, _plain, _jax_gradient),
    "tensorflow": Framework(_tensorflow_make, _plain, _tensorflow_gradient),
}
