"""Trap 25: a penalty of what ``fully_shard`` leaves on a rank."""

from __future__ import annotations

import pytest
import torch
from ranks import on_ranks
from torch import nn
from torch.distributed.fsdp import fully_shard

from penalize import L1, L2, GroupLasso, Regularizer, kernels
from penalize.torch import regularize


def model_of() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(6, 5, bias=False).double()


@pytest.mark.parametrize("regularizer", [L1(0.1) + L2(0.2), GroupLasso(0.3, groups="inputs")])
@on_ranks(2)
def test_value_and_gradient_equal_unsharded(regularizer: Regularizer) -> None:
    whole, sharded = model_of(), fully_shard(model_of())
    expected = regularize(whole, {kernels: regularizer}).penalty()
    expected.backward()

    resolved = GroupLasso(0.3, groups=1) if isinstance(regularizer, GroupLasso) else regularizer
    naive = resolved(sharded.weight.to_local())
    assert naive < 0.9 * expected

    plan = regularize(sharded, {kernels: regularizer})
    value = plan.penalty()
    value.backward()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(sharded.weight.grad.full_tensor(), whole.weight.grad)


@on_ranks(2)
def test_added_to_the_loss_as_it_is() -> None:
    """The sum of a DTensor is one, and does not add to a loss that is none."""
    model = fully_shard(model_of())
    with pytest.raises(
        RuntimeError, match=r"mixed torch.Tensor and (torch.distributed.tensor.)?DT"
    ):
        torch.ones(3, dtype=torch.float64) + model.weight.pow(2).sum(1)[:3]
    loss = model(torch.ones(2, 6, dtype=torch.float64)).sum()
    (loss + regularize(model, L2(0.2)).penalty()).backward()
    expected = 2.0 + 0.4 * model_of().weight
    torch.testing.assert_close(model.weight.grad.full_tensor(), expected.detach())
