"""What is particular to PyTorch: its function transforms, and autocast."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cases import KINDS, Case

from penalize import Custom, Orthogonal

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


def everything_of(case: Case, w: torch.Tensor) -> list[torch.Tensor]:
    """Value, its derivative, gradient, pull and prox."""
    r, leaf = case.regularizer, w.clone().requires_grad_()
    found = [r(w)]
    if r.differentiable:
        value = r(leaf)
        with torch.autocast("cpu", enabled=False):  # as after the context, where it belongs
            value.backward()
        found += [r.gradient(w), r.pull(w), leaf.grad]
    return [*found, r.prox(w, 0.3)] if case.has_prox else found


@all_cases
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_does_not_touch_it(case: Case, half: torch.dtype) -> None:
    w = array(case).float()
    with torch.autocast("cpu", half):
        found = everything_of(case, w)
    for ours, expected in zip(found, everything_of(case, w), strict=True):
        assert torch.equal(ours, expected)


def test_autocast_does_touch_what_is_written_by_hand() -> None:
    """Near orthogonality the rounding of bfloat16 is larger than what the penalty pulls at."""
    w = torch.linalg.qr(torch.tensor(np.random.default_rng(0).normal(size=(16, 16))))[0].float()
    w = (w + 0.002).requires_grad_()

    def soft(x: torch.Tensor) -> torch.Tensor:
        return ((x @ x.T - torch.eye(16)) ** 2).sum()

    def gradient(f: Any, *, compiled: bool = False) -> torch.Tensor:
        f = torch.compile(f, fullgraph=True, backend="eager") if compiled else f
        with torch.autocast("cpu", torch.bfloat16):
            value = f(w)
        return torch.autograd.grad(value, w)[0]

    (right,) = torch.autograd.grad(soft(w), w)
    assert (gradient(soft) - right).norm() > 0.05 * right.norm()
    for compiled in (False, True):
        torch.testing.assert_close(gradient(Custom(soft), compiled=compiled), right)


def test_a_device_without_autocast() -> None:
    assert Orthogonal(1.0)(torch.ones(2, 2, device="meta")).shape == ()
