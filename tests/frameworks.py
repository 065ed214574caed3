"""How each framework makes an array from float64 NumPy, and gives it back.

Frameworks are imported when they are first used, so that a test of one does not load the others.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from penalize import Regularizer


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


class Functions(NamedTuple):
    """Those of one regularizer, for arrays of one framework."""

    value: Callable[[Any], Any]
    gradient: Callable[[Any], Any]
    prox: Callable[[Any, Any], Any]
    derivative: Callable[[Any], Any]
    """The gradient by the framework's own differentiation of the value."""


@functools.cache
def functions(r: Regularizer, framework: str) -> Functions:
    """What a test calls that runs for every case, and on every framework.

    On JAX they are compiled, once for a dtype. Left to itself JAX compiles every single operation,
    some ten for each case, which takes several times as long. That uncompiled it gives the same is
    asked of one case of each kind, in ``tests/backends/test_jax.py``.
    """
    if framework != "jax":
        return Functions(r, r.gradient, r.prox, lambda w: FRAMEWORKS[framework].gradient(r, w))
    import jax

    @jax.jit
    def whole(w: Any) -> tuple[Any, ...]:
        found = (r(w), r.gradient(w)) if r.differentiable else (r(w),)
        # Its own derivative is asked for in the widest type alone.
        return (*found, jax.grad(r)(w)) if r.differentiable and w.dtype == "float64" else found

    prox = jax.jit(r.prox)
    return Functions(
        lambda w: whole(w)[0],
        lambda w: whole(w)[1],
        lambda w, step: prox(w, 1.0 * step),  # no integer
        lambda w: whole(w)[2],
    )


class Jitted:
    """A function under ``jax.jit`` that counts how often it is traced.

    What JAX counts itself it forgets, once a process has compiled some thousand functions.
    """

    def __init__(self, f: Callable[..., Any]) -> None:
        import jax

        self.traces = 0

        def traced(*arguments: Any) -> Any:
            self.traces += 1
            return f(*arguments)

        self._jitted = jax.jit(traced)

    def __call__(self, *arguments: Any) -> Any:
        return self._jitted(*arguments)
