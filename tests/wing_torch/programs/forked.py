"""A first step in a child that was forked when PyTorch's threads were at work already."""

from __future__ import annotations

import os
import signal
import sys

import torch
from torch import nn

import penalize.torch
from penalize import L1


def step() -> bool:
    """Whether a step is right. (No tensor is so large that PyTorch would ask for its threads.)"""
    ws = nn.ParameterList(torch.full((64, 64), 2.0) for _ in range(300))
    for w in ws:
        w.grad = torch.zeros(64, 64)
    optimizer = torch.optim.SGD(ws.parameters(), lr=1.0)
    attachment = penalize.torch.regularize(ws, {"*": L1(0.5)}).attach(optimizer)
    optimizer.step()
    used = {route.path for route in attachment.explain()} == {"compiled"}
    return used and all((w == 1.5).all() for w in ws)


def main() -> None:
    torch.set_num_threads(2)
    torch.zeros(4_000_000).add_(1.0)
    assert "penalize.torch.kernels" not in sys.modules
    child = os.fork()
    if not child:
        signal.alarm(60)  # rather than wait forever
        os._exit(0 if step() else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0, status
    print("forked")


if __name__ == "__main__":
    main()
