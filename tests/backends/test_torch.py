"""What is particular to PyTorch: its function transforms, and autocast."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cases import KINDS, Case

from penalize import L1, L2, MCP, Custom, Orthogonal

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
    """Value, its derivatives, gradient, pull and prox."""
    r, leaf = case.regularizer, w.clone().requires_grad_()
    found = [r(w)]
    if r.differentiable:
        (slope,) = torch.autograd.grad(r(leaf), leaf, create_graph=True)
        found += [r.gradient(w), r.pull(w), slope.detach(), torch.func.grad(r)(w)]
        found += [torch.func.grad(lambda many: torch.func.vmap(r)(many).sum())(w[None])]
        if slope.requires_grad:
            found += torch.autograd.grad(slope.square().sum(), leaf)
    return [*found, r.prox(w, 0.3)] if case.has_prox else found


@all_cases
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_does_not_touch_it(case: Case, half: torch.dtype) -> None:
    """Neither what is computed, nor what a backward pass computes that runs within it as well."""
    w = array(case).float()
    with torch.autocast("cpu", half):
        found = everything_of(case, w)
    for ours, expected in zip(found, everything_of(case, w), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


def soft(x: torch.Tensor) -> torch.Tensor:
    return ((x @ x.T - torch.eye(16)) ** 2).sum()


def nearly_orthogonal() -> torch.Tensor:
    """There the rounding of bfloat16 is larger than what the penalty pulls at."""
    w = torch.linalg.qr(torch.tensor(np.random.default_rng(0).normal(size=(16, 16))))[0].float()
    return (w + 0.002).requires_grad_()


@pytest.mark.parametrize("inside", [False, True], ids=["backward after it", "backward inside"])
@pytest.mark.parametrize("compiled", [False, True])
def test_autocast_does_touch_what_is_written_by_hand(inside: bool, compiled: bool) -> None:
    w = nearly_orthogonal()

    def gradient(f: Any) -> torch.Tensor:
        f = torch.compile(f, fullgraph=True, backend="aot_eager") if compiled else f
        with torch.autocast("cpu", torch.bfloat16):
            value = f(w)
            if inside:
                return torch.autograd.grad(value, w)[0]
        return torch.autograd.grad(value, w)[0]

    (right,) = torch.autograd.grad(soft(w), w)
    assert (gradient(soft) - right).norm() > 0.05 * right.norm()
    torch.testing.assert_close(gradient(Custom(soft)), right)


def test_autocast_still_acts_on_what_stands_beside_it() -> None:
    """A backward pass through both narrows the products of the loop, and those alone."""
    w, x = nearly_orthogonal(), torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    other = torch.zeros(16, 16, requires_grad=True)
    penalty = Custom(lambda m: soft(m) + (other * m).sum())

    def gradients(penalized: bool) -> list[torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            loss = (x @ w).square().sum()
            value = loss + (penalty(w) if penalized else 0.0)
            found = torch.autograd.grad(value, [w, other] if penalized else [w])
            assert torch.is_autocast_enabled("cpu")
        return list(found)

    (data,), (total, beside) = gradients(False), gradients(True)
    (pull,) = torch.autograd.grad(soft(w), w)
    torch.testing.assert_close(total, data + pull)
    torch.testing.assert_close(beside, w.detach())  # the function's own parameter, too


@pytest.mark.parametrize("make", [L2, MCP, lambda s: s * (L1(1.0) + L2(2.0))])
def test_a_strength_that_varies_in_a_compiled_function(make: Any) -> None:
    """PyTorch compiles for a number that varies once; and a break in the graph it would refuse."""
    w = torch.linspace(-1.0, 1.0, 6).reshape(2, 3)
    graphs = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph

    compiled = torch.compile(lambda s: make(s)(w), fullgraph=True, backend=backend)
    for strength in (0.1, 0.2, 0.3, 0.4):
        torch.testing.assert_close(compiled(strength), make(strength)(w))
    assert len(graphs) <= 2


def test_a_device_without_autocast() -> None:
    assert Orthogonal(1.0)(torch.ones(2, 2, device="meta")).shape == ()
