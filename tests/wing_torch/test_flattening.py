"""Proximal steps of penalties that flatten out, under every optimizer that mode accepts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flattening
import numpy as np
import pytest
import torch
import torch.optim as opt
from torch import nn

from penalize import MCP, SCAD
from penalize.torch import regularize

# With short memories, so that what they remember of the way is gone at the end.
OPTIMIZERS: dict[str, Callable[[Any], opt.Optimizer]] = {
    "SGD": lambda p: opt.SGD(p, lr=0.3),
    "momentum": lambda p: opt.SGD(p, lr=0.05, momentum=0.8),
    "Adam": lambda p: opt.Adam(p, lr=0.02, betas=(0.8, 0.9)),
    "AdamW": lambda p: opt.AdamW(p, lr=0.02, betas=(0.8, 0.9), weight_decay=0.0),
    "AMSGrad": lambda p: opt.Adam(p, lr=0.02, betas=(0.8, 0.9), amsgrad=True),
    "NAdam": lambda p: opt.NAdam(p, lr=0.02, betas=(0.8, 0.9)),
    "RAdam": lambda p: opt.RAdam(p, lr=0.02, betas=(0.8, 0.95)),
    "Adamax": lambda p: opt.Adamax(p, lr=0.02, betas=(0.8, 0.9)),
    "Adagrad": lambda p: opt.Adagrad(p, lr=0.3),
    "RMSprop": lambda p: opt.RMSprop(p, lr=0.015, alpha=0.9),
}


def solved(make: Callable[[Any], opt.Optimizer]) -> dict[str, np.ndarray]:
    model = nn.ParameterDict(
        {name: nn.Parameter(torch.tensor(flattening.start(name))) for name in flattening.PROBLEMS}
    )
    targets = [torch.tensor(flattening.target(name)) for name in flattening.PROBLEMS]
    optimizer = make(model.parameters())
    regularize(model, dict(flattening.PROBLEMS)).attach(optimizer, mode="proximal")
    rate = optimizer.param_groups[0]["lr"]
    weights = [model[name] for name in flattening.PROBLEMS]
    for step in range(flattening.STEPS):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / flattening.STEPS)
        for w, t in zip(weights, targets, strict=True):
            w.grad = w.detach() - t
        optimizer.step()
    return {name: w.detach().numpy() for name, w in model.items()}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_it_ends_at_the_minimum(make: Any) -> None:
    flattening.check(solved(make))


def test_the_exact_prox_with_a_floor_ends_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The naive way: a tenth of the mean slope is more than the slope at the solution."""
    for kind in (MCP, SCAD):
        monkeypatch.setattr(kind, "_tangent", lambda self, w, xp: self)
    monkeypatch.delitem(flattening.PROBLEMS, "GroupMCP")
    weights = solved(OPTIMIZERS["Adam"])
    for name in ("MCP", "SCAD"):
        assert flattening.left(name, weights[name]).max() > 5e-3
