"""Groups that span sharded parameters: six steps on two ranks, equal to those of one process."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ranks import on_ranks
from shardings import WAYS, assert_same_weights, data, net, share, train, whole

from penalize import L2, GroupLasso
from penalize.torch import regularize

TOGETHER = {
    # Rows of two, of which one is sharded, and columns of a third.
    "hidden": (
        GroupLasso(0.05),
        {"first": "outputs", "norm.weight": 0, "last.weight": ("inputs", range(7))},
    ),
    "some outputs": (GroupLasso(0.2) + L2(0.01), {"last.bias": (0, [0, 2])}),
}
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.5),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0),
}
PAIRS = [
    *(("loss", "SGD"), ("gradient", "AdamW"), ("decoupled", "AdamW")),
    *(("proximal", "SGD"), ("proximal", "AdamW"), ("halfspace", "AdamW")),
]


@pytest.mark.parametrize("way", ["fsdp", "tensor parallel"])
@on_ranks(2)
def test_two_ranks(way: str) -> None:
    x, y = data()
    for mode, optimizer in PAIRS:
        sharded, alone = WAYS[way](copy.deepcopy(net())), net()
        make = OPTIMIZERS[optimizer]
        parts = (share(way, x), share(way, y), 6)
        _, found = train(sharded, None, mode, make, *parts, together=TOGETHER)
        _, wanted = train(alone, None, mode, make, x, y, 6, together=TOGETHER)
        assert found == pytest.approx(wanted, rel=1e-9), (way, mode, optimizer)
        assert_same_weights(sharded, alone)


@on_ranks(2)
def test_the_shards_alone_would_be_other_groups() -> None:
    """The norms of what one rank has of a unit are no norms of the unit."""
    model: Any = WAYS["fsdp"](net())
    plan = regularize(model, together={"hidden": TOGETHER["hidden"]})
    held = {name: whole(p.detach()) for name, p in model.named_parameters()}
    columns = [held["first.bias"][:, None], held["norm.weight"][:, None], held["last.weight"].T]
    full = torch.cat([held["first.weight"], *columns], 1)
    wanted = 0.05 * 10**0.5 * full.norm(dim=1).sum()
    assert plan.penalty().item() == pytest.approx(wanted.item(), rel=1e-12)
    local = model.last.weight.to_local()
    assert not torch.allclose(local.norm(dim=0), held["last.weight"].norm(dim=0))
