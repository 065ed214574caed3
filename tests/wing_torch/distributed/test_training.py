"""Ten steps on several ranks, equal to those of one process."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from ranks import on_ranks
from shardings import WAYS, assert_same_weights, data, net, share, train
from torch import nn
from torch.distributed.tensor import DTensor

from penalize import L1, L1L2, L2, GroupLasso, Orthogonal, Regularizer, biases, kernels
from penalize.backends import Array, Backend
from penalize.errors import NoKinkError, NoProximalOperatorError
from penalize.torch import regularize


@dataclass(frozen=True, repr=False)
class Cubic(Regularizer):
    """A user's own, which knows nothing of shards: λ Σ|w|·Σw²."""

    strength: float

    def _value(self, w: Array, xp: Backend) -> Array:
        return self.strength * w.abs().sum() * (w * w).sum()

    def _gradient(self, w: Array, xp: Backend) -> Array:
        squares, size = (w * w).sum(), w.abs().sum()
        return self.strength * (w.sign() * squares + 2 * w * size)


FIRST = [list(range(9)), [9, 11], [10, *range(12, 35)]]

RULES: dict[str, Any] = {
    "with a prox": {
        "first.weight": GroupLasso(0.05, groups="inputs") + L1(0.01),
        "last.weight": GroupLasso(0.05, groups="outputs") + L2(0.02),
        "norm.weight": L1(0.03) + L2(0.1),
        biases: L1L2(l1=0.02, l2=0.1),
    },
    "a partition": {"first.weight": GroupLasso(0.1, groups=FIRST), "last.weight": L1(0.01)},
    "gathered": {"first.weight": Orthogonal(0.1), "last.weight": Cubic(0.01) + L2(0.01)},
}

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.5),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0),
}

MODES = ("loss", "gradient", "decoupled", "proximal", "halfspace")


EVERY_PAIR = [(mode, optimizer) for mode in MODES for optimizer in OPTIMIZERS]
EVERY_MODE = [
    *(("loss", "SGD"), ("gradient", "AdamW"), ("decoupled", "AdamW")),
    *(("proximal", "SGD"), ("halfspace", "AdamW")),
]
WITHOUT_PROX = EVERY_MODE[:2]


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("way", ["fsdp", "tensor parallel"])
@on_ranks(2)
def test_two_ranks(way: str, rules: str) -> None:
    """Every pair of mode and optimizer where rows are sharded.

    Where columns are, too, each mode once, and the prox that reads the optimizer's state besides:
    the other modes see nothing of an optimizer but its learning rate.
    """
    pairs = [*EVERY_MODE, ("proximal", "AdamW")] if rules == "with a prox" else EVERY_MODE
    every = way == "fsdp" and rules == "with a prox"
    for mode, optimizer in EVERY_PAIR if every else pairs:
        compare(way, RULES[rules], mode, OPTIMIZERS[optimizer])


@pytest.mark.parametrize("rules", ["with a prox", "gathered"])
@pytest.mark.parametrize("way", ["fsdp", "hsdp", "fsdp and tensor parallel"])
@on_ranks(4)
def test_four_ranks(way: str, rules: str) -> None:
    """The last layer has three rows: under fsdp, one rank has none."""
    for mode, optimizer in EVERY_MODE if rules == "with a prox" else WITHOUT_PROX:
        compare(way, RULES[rules], mode, OPTIMIZERS[optimizer])


def compare(
    way: str, rules: Any, mode: str, optimizer: Callable[[Any], torch.optim.Optimizer]
) -> None:
    x, y = data()
    reference = net()
    sharded = WAYS[way](copy.deepcopy(reference))
    mine = share(way, x), share(way, y)
    try:
        plan, penalties = train(reference, rules, mode, optimizer, x, y)
    except (NoProximalOperatorError, NoKinkError) as error:
        with pytest.raises(type(error)):
            train(sharded, rules, mode, optimizer, *mine)
        return
    found, found_penalties = train(sharded, rules, mode, optimizer, *mine)
    assert isinstance(sharded.last.weight, DTensor)
    assert_same_weights(sharded, reference)
    assert found_penalties == pytest.approx(penalties, rel=1e-9)
    assert found.breakdown() == pytest.approx(plan.breakdown(), rel=1e-9)
    assert [row.name for row in found.rows] == [row.name for row in plan.rows]
    assert [row.shape for row in found.rows] == [row.shape for row in plan.rows]
    for parameter in sharded.parameters():
        assert parameter.grad is None or type(parameter.grad) is type(parameter.data)


@on_ranks(2)
def test_averages_are_saved_as_the_weights_are_sharded() -> None:
    x, y = data()

    def run(model: Any, steps: int, state: Any = None) -> Any:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        plan = regularize(model, {kernels: GroupLasso(0.05, groups="outputs") + L1(0.02)})
        attachment = plan.attach(optimizer, mode="halfspace", average=0.8)
        if state is not None:
            attachment.load_state_dict(state)
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
        return attachment.state_dict()

    model, reference = WAYS["fsdp"](net()), net()
    state = run(model, 5)
    assert all(isinstance(a["mean"], DTensor) for a in state["averages"][0].values())
    run(model, 5, state)
    run(reference, 5, run(reference, 5))
    assert_same_weights(model, reference)
