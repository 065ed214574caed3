"""Trap 26: norms along the axis that is sharded, and numbers made of what is pending."""

from __future__ import annotations

import pytest
import torch
from ranks import on_ranks
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from penalize import GroupLasso


@pytest.mark.parametrize("axis", [0, 1])
@on_ranks(2)
def test_groups_across_shards(axis: int) -> None:
    w = torch.randn(4, 6, dtype=torch.float64)
    sharded = distribute_tensor(w, init_device_mesh("cpu", (2,)), [Shard(axis)])
    expected = torch.linalg.vector_norm(w, dim=axis).sum()

    naive = float(sharded.pow(2).sum())  # pending: what this rank has
    assert naive < 0.99 * w.pow(2).sum() or naive > 1.01 * w.pow(2).sum()
    by_hand = torch.linalg.vector_norm(sharded.to_local(), dim=axis).sum()
    assert not torch.isclose(by_hand, expected, rtol=0.01)

    value = GroupLasso(1.0, groups=1 - axis, size_weighted=False)(sharded)
    torch.testing.assert_close(value, expected)
    assert float(value) == value.item()
