"""``clip="with"`` where the gradients of several ranks come together at the end of a pass."""

from __future__ import annotations

import contextlib

import pytest
import torch
from ranks import on_ranks
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from penalize import L1, L2, GroupLasso
from penalize.torch import regularize

RULES = {"0": L2(2.0) + L1(0.1), "2": GroupLasso(0.5, groups="inputs")}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def train(model: nn.Module, micro: int, rank: int, world: int) -> list[Tensor]:
    """A few clipped steps on this rank's share of each batch, in so many micro-batches."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    regularize(model, RULES).attach(optimizer, clip="with")
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        x = torch.randn(8, 6, generator=generator).double().chunk(micro * world)
        y = torch.randn(8, 3, generator=generator).double().chunk(micro * world)
        optimizer.zero_grad()
        for i in range(micro):
            mine = rank * micro + i
            late = i < micro - 1 and isinstance(model, DistributedDataParallel)
            with model.no_sync() if late else contextlib.nullcontext():
                (nn.functional.mse_loss(model(x[mine]), y[mine]) / micro).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    found = [p.full_tensor() if isinstance(p, DTensor) else p for p in model.parameters()]
    return [p.detach() for p in found]


@pytest.mark.parametrize("micro", [1, 2])
@pytest.mark.parametrize("kind", ["DDP", "DDP, buckets as gradients", "fully_shard"])
@on_ranks(2)
def test_equals_one_process(kind: str, micro: int) -> None:
    expected = train(network(), 2 * micro, 0, 1)
    model: nn.Module = network()
    if kind == "fully_shard":
        fully_shard(model[0])
        fully_shard(model)
    else:
        model = DistributedDataParallel(model, gradient_as_bucket_view="buckets" in kind)
    found = train(model, micro, distributed.get_rank(), 2)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-14)
