"""A small model, its ways of being sharded, and the loop that each of them is compared in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from penalize.torch import Plan, regularize


class Net(nn.Module):
    """No size of it can be divided by two."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 7)
        self.norm = nn.LayerNorm(7)
        self.last = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.norm(self.first(x))))


def net() -> Net:
    torch.manual_seed(0)
    return Net().double()


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(8, 5, generator=generator, dtype=torch.float64)
    return x, torch.randn(8, 3, generator=generator, dtype=torch.float64)


def mesh_of(*sizes: int) -> DeviceMesh:
    names = ("outer", "inner")[-len(sizes) :]
    return init_device_mesh("cpu", sizes, mesh_dim_names=names)


def fsdp(model: Net, mesh: DeviceMesh | None = None) -> Net:
    """The first layer by itself, the rest with the model."""
    fully_shard(model.first, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def hsdp(model: Net) -> Net:
    return fsdp(model, mesh_of(2, distributed.get_world_size() // 2))


def tensor_parallel(model: Net, mesh: DeviceMesh | None = None) -> Net:
    plan = {
        "first": ColwiseParallel(output_layouts=Replicate()),
        "last": RowwiseParallel(input_layouts=Replicate()),
    }
    return parallelize_module(model, mesh or mesh_of(distributed.get_world_size()), plan)


def both(model: Net) -> Net:
    mesh = mesh_of(2, distributed.get_world_size() // 2)
    return fsdp(tensor_parallel(model, mesh["inner"]), mesh["outer"])


WAYS: dict[str, Callable[[Net], Net]] = {
    "fsdp": fsdp,
    "hsdp": hsdp,
    "tensor parallel": tensor_parallel,
    "fsdp and tensor parallel": both,
}


def share(way: str, x: Tensor) -> Tensor:
    """The part of a batch that this rank has."""
    rank, world = distributed.get_rank(), distributed.get_world_size()
    if way == "tensor parallel":
        return x
    if way == "fsdp and tensor parallel":
        return x.chunk(2)[rank // (world // 2)]
    return x.chunk(world)[rank]


def train(
    model: nn.Module,
    rules: Any,
    mode: str,
    make: Callable[[Any], torch.optim.Optimizer],
    x: Tensor,
    y: Tensor,
    steps: int = 10,
    together: Any = None,
) -> tuple[Plan, list[float]]:
    """A loop as anybody writes it; the plan, and the penalty after the first and the last step."""
    plan = regularize(model, rules, together=together)
    optimizer = make(model.parameters())
    if mode != "loss":
        plan.attach(optimizer, mode=mode)
    penalties = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        if mode == "loss":
            loss = loss + plan.penalty()
        loss.backward()
        optimizer.step()
        if step in (0, steps - 1):
            penalties.append(plan.penalty().item())
    return plan, penalties


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def assert_same_weights(model: nn.Module, reference: nn.Module, within: float = 1e-9) -> None:
    """To rounding, zeros exactly: the ranks add up in another order than one process does."""
    expected = dict(reference.named_parameters())
    for name, parameter in model.named_parameters():
        found = whole(parameter.detach())
        wanted = expected[name.removeprefix("module.")].detach()
        torch.testing.assert_close(found, wanted, rtol=within, atol=within)
        assert (found == 0).equal(wanted == 0), name
