"""Half-space steps of sharded weights with groups: their sums are taken over the ranks together."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from ranks import on_ranks
from shardings import WAYS, data, net, share
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode

from penalize import L1, L2, GroupLasso, Regularizer, SparseGroupLasso, warmup
from penalize.torch import regularize
from penalize.torch.kernels import Together, reference
from penalize.torch.kernels.cpu import Buffers
from penalize.torch.kernels.jobs import Offer
from penalize.torch.kernels.work import Work

RULES: dict[str, Any] = {
    "first.weight": L1(0.005) + GroupLasso(0.03, groups="inputs") + L2(0.01),
    "last.weight": SparseGroupLasso(0.05, groups="outputs"),
    "norm.weight": L1(0.03),
}
LAST = {"last.weight": RULES["last.weight"]}
PATHS = {"first.weight": "together", "last.weight": "together", "norm.weight": "plain"}


def local_of(x: Any) -> Tensor:
    local: Tensor = x.to_local() if isinstance(x, DTensor) else x
    return local


class Decides(GroupLasso):
    """A group lasso that cannot be traced."""

    on_shards = True

    def _gradient(self, w: Any, xp: Any) -> Any:
        return w if xp.sum(w) > 0 else -w


class OnRanks:
    """A sharded network in training."""

    def __init__(self, way: str, rules: dict[str, Any]) -> None:
        self._way = way
        self.model: Any = WAYS[way](copy.deepcopy(net()))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.5)
        plan = regularize(self.model, rules)
        self.attachment = plan.attach(self.optimizer, mode="halfspace", average=0.7)

    def step(self, bad: float | None) -> int:
        """How many collective operations it took; perhaps with something bad in a gradient."""
        x, y = (share(self._way, each) for each in data())
        self.optimizer.zero_grad()
        nn.functional.mse_loss(self.model(x), y).backward()
        local = local_of(self.model.first.weight.grad)
        if bad is not None and local.numel():
            local[-1, -1] = bad
        with CommDebugMode() as mode:
            self.optimizer.step()
        return int(mode.get_total_counts())

    @property
    def paths(self) -> dict[str, str]:
        return {row.name: row.path for row in self.attachment.explain()}

    @property
    def values(self) -> list[Tensor]:
        held = [p.detach() for p in self.model.parameters()]
        return [p.full_tensor() if isinstance(p, DTensor) else p for p in held]

    @property
    def memory(self) -> dict[str, Any]:
        (averages,) = self.attachment.state_dict()["averages"]
        return dict(averages)


def check(way: str, rules: dict[str, Any], bad: float | None, steps: int) -> tuple[list[int], Any]:
    fast, slow = OnRanks(way, rules), OnRanks(way, rules)
    counts, plain_counts = [], []
    for i in range(steps):
        wrong = bad if i == steps - 2 else None
        counts.append(fast.step(wrong))
        with reference():
            plain_counts.append(slow.step(wrong))
        torch.testing.assert_close(fast.values, slow.values, equal_nan=True, rtol=1e-9, atol=1e-12)
        for x, y in zip(fast.values, slow.values, strict=True):
            assert torch.equal(x == 0, y == 0)
    assert fast.paths == PATHS
    assert set(slow.paths.values()) == {"plain"}
    for name, saved in slow.memory.items():
        found = fast.memory[name]
        torch.testing.assert_close(local_of(found.pop("mean")), local_of(saved.pop("mean")))
        assert found == pytest.approx(saved, rel=1e-9, abs=1e-12)
    return counts, plain_counts


@pytest.mark.parametrize("way", ["fsdp", "tensor parallel"])
@on_ranks(2)
def test_five_sums_over_the_ranks_for_all_weights(way: str) -> None:
    """The plain path takes about ten for each of those whose groups cross the shards."""
    counts, plain = check(way, RULES, None, 12)
    assert set(counts[1:]) == {5}  # at first each share of zeros is asked for
    assert min(plain[1:]) > 10


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@on_ranks(2)
def test_what_is_not_finite(bad: float) -> None:
    check("fsdp", RULES, bad, 3)


@on_ranks(2)
def test_a_warm_up() -> None:
    check("fsdp", {name: r * warmup(3) for name, r in RULES.items()}, None, 6)


@on_ranks(4)
def test_a_mesh_of_two_dimensions() -> None:
    """Sums that other dimensions of it cut go by themselves."""
    counts, plain = check("fsdp and tensor parallel", RULES, None, 4)
    assert max(counts[1:]) < min(plain[1:])
    counts, _ = check("hsdp", RULES, None, 4)
    assert set(counts[1:]) == {5}


@on_ranks(2)
def test_what_is_not_taken_together() -> None:
    """And why, as explain() has it."""
    partition = [list(range(9)), [9, 11], [10, *range(12, 35)]]
    each = OnRanks("fsdp", {"first.weight": GroupLasso(0.1, groups=partition), **LAST})
    each.step(None)
    assert [(row.path, row.why) for row in each.attachment.explain()] == [
        ("plain", "it is a DTensor"),
        ("together", ""),
    ]
    each.optimizer.zero_grad()
    each.optimizer.step(lambda: each.model(data()[0]).sum().backward())
    assert {row.why for row in each.attachment.explain()} == {"its closure may be evaluated again"}

    mesh, penalty = init_device_mesh("cpu", (2,)), GroupLasso(0.1, groups=0)

    def offer(w: Tensor, g: Tensor, penalty: Regularizer = penalty) -> Any:
        return Together.offer(Work(w, g, penalty, 1.0, False, None, average=0.9), Buffers())

    rows = distribute_tensor(torch.ones(4, 2), mesh, [Shard(0)])
    columns = distribute_tensor(torch.ones(4, 2), mesh, [Shard(1)])
    nothing = distribute_tensor(torch.ones(0, 2), mesh, [Shard(0)])
    partial = DTensor.from_local(torch.ones(4, 2), mesh, [Partial()])
    assert offer(rows, columns) == "its gradient is sharded otherwise, or waits for a sum"
    assert offer(rows, torch.ones(4, 2)) == "its gradient is sharded otherwise, or waits for a sum"
    assert offer(partial, partial) == "its gradient is sharded otherwise, or waits for a sum"
    assert offer(nothing, nothing) == "it has no elements"
    odd = "its formula cannot be written down: it decides by the value of a weight"
    assert offer(rows, rows, Decides(0.1, groups=0)) == odd
    assert isinstance(offer(rows, rows), Offer)
    assert offer(torch.ones(4, 2), torch.ones(4, 2)) == ""
