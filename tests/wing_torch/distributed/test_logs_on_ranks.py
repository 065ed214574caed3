"""``penalize.log`` of a sharded model, on every rank."""

from __future__ import annotations

import pytest
import torch
from ranks import on_ranks
from torch import nn
from torch.distributed.fsdp import fully_shard

from penalize import L1, GroupLasso, blocks, log
from penalize.torch import regularize


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    with torch.no_grad():
        model[0].weight[1:4], model[2].weight[:, 2] = 0, 0
    return model


@on_ranks(2)
def test_as_of_one_process() -> None:
    grouped = GroupLasso(0.5) + GroupLasso(0.1, groups=blocks("inputs", 3))
    rules = {"0": grouped, "2": GroupLasso(0.5, groups="inputs") + L1(0.1)}
    expected = log(regularize(network(), rules))
    assert (expected["groups/0"], expected["groups_1/0"], expected["groups/2"]) == (2, 3, 4)
    model = network()
    fully_shard(model[0])
    fully_shard(model)
    assert log(regularize(model, rules)) == pytest.approx(expected, rel=1e-14)
