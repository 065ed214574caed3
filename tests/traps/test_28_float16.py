"""Trap 28: a sum of squares in float16."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

import penalize.jax
from penalize import L2
from penalize.torch import regularize


def test_wide_accumulation_is_finite() -> None:
    w = torch.full((3000,), 10.0, dtype=torch.float16)
    with np.errstate(over="ignore"):
        assert np.isinf((w.numpy() ** 2).sum(dtype=np.float16))  # naive
    assert torch.isinf(w.pow(2).sum())  # naive
    for array in (w, w.numpy()):
        assert float(L2(1.0)(array)) == 300_000.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_plan_over_half_weights_is_wide(dtype: torch.dtype) -> None:
    model = nn.Linear(100, 30).to(dtype)
    nn.init.constant_(model.weight, 10.0)
    penalty = regularize(model, L2(1.0)).penalty()
    assert penalty.dtype == torch.float32
    assert penalty.item() == 300_000.0


def test_in_jax() -> None:
    params = {"w": jnp.full((100, 30), 10.0, jnp.float16)}
    assert jnp.isinf((params["w"] ** 2).sum())  # naive
    assert float(penalize.jax.regularize(params, L2(1.0)).penalty(params)) == 300_000.0
