"""Every check of ``programs/`` on every backend of Keras."""

from __future__ import annotations

import numpy as np
import pytest
from keras_programs import BACKENDS, checks, result


@pytest.mark.parametrize(
    ("backend", "check"), [(backend, check) for backend in BACKENDS for check in checks(backend)]
)
def test_check(backend: str, check: str) -> None:
    result(backend, check)


@pytest.mark.parametrize("check", [c for c in checks("jax") if c.endswith("_agrees")])
def test_the_backends_agree(check: str) -> None:
    """From the same weights and batches the same weights come, with the penalty in force."""
    first, *others = (result(backend, check) for backend in BACKENDS)
    assert len(first) > 0
    for other in others:
        for a, b in zip(first, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
