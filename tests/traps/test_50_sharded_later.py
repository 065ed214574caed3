"""Trap 50: an optimizer that was made before the model was sharded or moved steps nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from ranks import on_ranks
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

from penalize import L2
from penalize.errors import OptimizerError, ReplacedParameterError
from penalize.torch import regularize


def replicated(model: nn.Module) -> nn.Module:
    return fully_shard(model, mesh=init_device_mesh("cpu", (2, 1), mesh_dim_names=("r", "s")))


def tensor_parallel(model: nn.Module) -> nn.Module:
    return parallelize_module(model, init_device_mesh("cpu", (2,)), ColwiseParallel())


def moved(model: nn.Module) -> nn.Module:
    values = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.to_empty(device="cpu").load_state_dict(values, assign=True)
    return model


@pytest.mark.parametrize("change", [fully_shard, replicated, tensor_parallel, moved])
@on_ranks(2)
def test_a_clear_error(change: Callable[[nn.Module], nn.Module]) -> None:
    x = torch.ones(2, 6)

    naive = nn.Linear(6, 4)
    optimizer = torch.optim.SGD(naive.parameters(), lr=0.1)
    before = [p.detach().clone() for p in naive.parameters()]
    change(naive)(x).sum().backward()
    optimizer.step()  # in silence
    after = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in naive.parameters()]
    assert all(map(torch.equal, before, after))

    model = nn.Linear(6, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    attached = regularize(model, L2(0.1)).attach(optimizer)
    change(model)(x).sum().backward()
    with pytest.raises(ReplacedParameterError, match=r"'weight': no longer what the optimizer ste"):
        optimizer.step()
    attached.detach()
    with pytest.raises(OptimizerError, match="after the model was moved, wrapped or sharded"):
        regularize(model, L2(0.1)).attach(optimizer)
