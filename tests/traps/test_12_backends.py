"""Trap 12: the same Keras program trains differently on TensorFlow, JAX and PyTorch."""

from __future__ import annotations

import numpy as np
from keras_programs import result


def weights(backend: str, check: str) -> np.ndarray:
    return np.concatenate(result(backend, f"fitting.{check}"))


def test_fit_gives_the_same_update_on_all_three() -> None:
    naive = {b: weights(b, "check_naive_regularizer_after_tracing") for b in ("jax", "torch")}
    assert np.abs(naive["jax"] - naive["torch"]).max() > 1e-3  # JAX kept what it had traced

    ours = {b: weights(b, "check_training_agrees") for b in ("tensorflow", "jax", "torch")}
    for other in ("tensorflow", "jax"):
        np.testing.assert_allclose(ours[other], ours["torch"], rtol=0, atol=1e-6)
