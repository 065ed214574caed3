"""Replicated models, DistributedDataParallel, and optimizers that share their state out."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from ranks import on_ranks
from shardings import assert_same_weights, data, net, share, train
from torch.nn.parallel import DistributedDataParallel

from penalize import L1, L2, GroupLasso, biases, kernels
from penalize.errors import ModeError
from penalize.torch import regularize

RULES: dict[Any, Any] = {
    kernels: L1(0.01) + L2(0.02),
    "last.weight": GroupLasso(0.1, "inputs"),
    biases: L2(0.1),
}


def zero(parameters: Any, kind: type[torch.optim.Optimizer]) -> torch.optim.Optimizer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its package scripts others
        from torch.distributed.optim import ZeroRedundancyOptimizer

    return ZeroRedundancyOptimizer(parameters, optimizer_class=kind, lr=0.05)


def halves() -> list[torch.Tensor]:
    return [share("ddp", part) for part in data()]


@pytest.mark.parametrize("mode", ["loss", "gradient", "decoupled", "proximal"])
@on_ranks(2)
def test_replicas(mode: str) -> None:
    for make in (
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.5),
        lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0),
    ):
        reference, model = net(), DistributedDataParallel(net())
        plan, penalties = train(reference, RULES, mode, make, *data())
        found, found_penalties = train(model, RULES, mode, make, *halves())
        assert_same_weights(model, reference)
        assert found_penalties == pytest.approx(penalties, rel=1e-9)
        assert [row.name for row in found.rows] == [row.name for row in plan.rows]


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("mode", ["loss", "gradient", "decoupled"])
@on_ranks(2)
def test_an_optimizer_that_shares_its_state_out(
    mode: str, kind: type[torch.optim.Optimizer]
) -> None:
    reference, model = net(), DistributedDataParallel(net())
    train(reference, RULES, mode, lambda p: kind(p, lr=0.05), *data())
    train(model, RULES, mode, lambda p: zero(p, kind), *halves())
    assert_same_weights(model, reference)


@on_ranks(2)
def test_no_proximal_steps_for_state_that_is_elsewhere() -> None:
    """Each rank has the state, and so the step, of its own share only."""
    model = net()
    optimizer = zero(model.parameters(), torch.optim.Adam)
    with pytest.raises(ModeError, match="that of ZeroRedundancyOptimizer is not known"):
        regularize(model, RULES).attach(optimizer, mode="proximal")
