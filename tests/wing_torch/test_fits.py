"""What a gradient says of the weight that it comes to."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from penalize.torch.auditing.gradient_kinds import Fit, Kind, fit

SIZES = st.integers(4, 5000)
SEEDS = st.integers(0, 2**31)
COEFFICIENTS = st.floats(1e-6, 1e3) | st.floats(-1e3, -1e-6)


def normal(size: int, seed: int) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


@given(size=SIZES, seed=SEEDS, c=COEFFICIENTS)
def test_a_multiple_of_the_weight_is_of_an_l2(size: int, seed: int, c: float) -> None:
    w = normal(size, seed)
    w[0] = 0.0  # what a penalty leaves alone
    found = fit(c * w, w)
    assert found.kind is Kind.L2
    assert found.coefficient == pytest.approx(c, rel=1e-5)


@given(size=SIZES, seed=SEEDS, c=COEFFICIENTS)
def test_a_multiple_of_the_sign_is_of_an_l1(size: int, seed: int, c: float) -> None:
    w = normal(size, seed)
    w[:2] = torch.tensor([-0.5, 0.5])
    found = fit(c * w.sign(), w)
    assert found.kind is Kind.L1
    assert found.coefficient == pytest.approx(c, rel=1e-5)


@given(size=SIZES, seed=SEEDS, c=COEFFICIENTS, share=st.floats(1e-2, 1.0))
def test_a_penalty_with_anything_else_in_it_is_data(
    size: int, seed: int, c: float, share: float
) -> None:
    w = normal(size, seed)
    assert fit(normal(size, seed + 1), w).kind is Kind.DATA
    assert fit(c * (w + share * normal(size, seed + 1)), w).kind is Kind.DATA


@given(size=SIZES, seed=SEEDS)
def test_one_element_that_differs_is_enough(size: int, seed: int) -> None:
    w = normal(size, seed)
    gradient = 0.3 * w
    gradient[seed % size] += 0.1
    assert fit(gradient, w).kind is Kind.DATA


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions(dtype: torch.dtype) -> None:
    w = normal(100, 0).to(dtype)
    assert fit(0.1 * w, w) == Fit(Kind.L2, pytest.approx(0.1, rel=1e-2))
    assert fit(normal(100, 1).to(dtype), w).kind is Kind.DATA


@pytest.mark.parametrize(
    ("gradient", "weight", "expected"),
    [
        (torch.zeros(5), torch.randn(5), Kind.NOTHING),
        (torch.zeros(0), torch.zeros(0), Kind.NOTHING),
        (0.2 * torch.ones(5), torch.ones(5), Kind.EITHER),  # a fresh norm: L2, L1, or a sum
        (0.2 * torch.ones(5), 1 + torch.arange(5.0), Kind.EITHER),  # L1, or a sum
        (torch.tensor([0.2]), torch.tensor([1.5]), Kind.EITHER),
        (torch.tensor([0.2, 0.4]), torch.tensor([1.0, 2.0]), Kind.EITHER),
        (torch.ones(5), torch.zeros(5), Kind.DATA),
        (torch.ones(5) * torch.inf, torch.randn(5), Kind.DATA),
        (torch.full((5,), torch.nan), torch.randn(5), Kind.DATA),
        (torch.ones(5).to_sparse(), torch.ones(5), Kind.DATA),
        (torch.ones(5, dtype=torch.complex64), torch.ones(5, dtype=torch.complex64), Kind.DATA),
    ],
)
def test_what_cannot_be_told_is_not_claimed(
    gradient: torch.Tensor, weight: torch.Tensor, expected: Kind
) -> None:
    assert fit(gradient, weight).kind is expected
