"""Trap 16: a typo in a pattern."""

from __future__ import annotations

import re

import jax.numpy as jnp
import pytest
from torch import nn

import penalize.jax
from penalize import L2, NoMatchError, kernels
from penalize.torch import regularize


def test_a_typo_is_an_error_with_the_nearest_names() -> None:
    model = nn.ModuleDict({"encoder": nn.Linear(3, 3), "head": nn.Linear(3, 2)})
    naive = [name for name, _ in model.named_parameters() if re.match("encodr", name)]
    assert naive == []  # and the loop that follows penalizes nothing
    with pytest.raises(NoMatchError, match="nearest names are 'encoder'"):
        regularize(model, {kernels: L2(1e-4), "encodr": L2(1e-3)})
    with pytest.raises(NoMatchError, match=r"nearest names are 'head\.weight'"):
        regularize(model, {kernels: L2(1e-4), "haed.weight": None})


def test_in_a_tree_of_jax() -> None:
    params = {"encoder": {"w": jnp.ones((3, 3))}, "head": {"w": jnp.ones((3, 2))}}
    naive = [name for name in params if re.match("encodr", name)]
    assert naive == []
    with pytest.raises(NoMatchError, match="nearest names are 'encoder'"):
        penalize.jax.regularize(params, {kernels: L2(1e-4), "encodr": L2(1e-3)})
