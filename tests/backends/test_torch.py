"""What is particular to PyTorch: its function transforms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import KINDS, Case

all_cases = pytest.mark.parametrize("case", KINDS, ids=str)


def array(case: Case) -> torch.Tensor:
    w = np.random.default_rng(0).normal(size=case.shape)
    w[0] = 0.0
    return torch.tensor(w)


@all_cases
def test_under_func(case: Case) -> None:
    """``torch.func.grad`` and ``vmap``, of value, gradient and prox."""
    w, r = array(case), case.regularizer
    stacked = torch.stack([w, 2 * w, torch.zeros_like(w)])
    functions = [r.gradient, torch.func.grad(r)] if r.differentiable else []
    functions += [lambda x: r.prox(x, 0.3)] if case.has_prox else []
    for f in functions:
        one_by_one = torch.stack([f(x) for x in stacked])
        torch.testing.assert_close(torch.func.vmap(f)(stacked), one_by_one, rtol=1e-12, atol=1e-13)
