"""A training that is killed in the middle, and goes on from its last checkpoint when run again.

resumed.py CHECKPOINT DIES_AT; it dies in the middle of that step, and never if it is −1.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn
from torch.optim import Adam
from torch.optim.lr_scheduler import CosineAnnealingLR

from penalize import L1, L2, kernels
from penalize.torch import regularize

STEPS = 9


def main(path: Path, dies_at: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    optimizer = Adam(model.parameters(), lr=0.05)
    attachment = regularize(model, {kernels: L1(0.05) + L2(0.02)}).attach(optimizer, "proximal")
    scheduler = CosineAnnealingLR(optimizer, STEPS)
    parts = {"model": model, "optimizer": optimizer, "attachment": attachment, "lr": scheduler}
    start = 0
    if path.exists():
        saved = torch.load(path, weights_only=True)
        start = saved.pop("start")
        for name, part in parts.items():
            part.load_state_dict(saved[name])
    for i in range(start, STEPS):
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(i)).double()
        optimizer.zero_grad()
        model(x).square().mean().backward()
        if i == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        optimizer.step()
        scheduler.step()
        state = {name: part.state_dict() for name, part in parts.items()}
        new = path.with_suffix(".new")
        torch.save({**state, "start": i + 1}, new)
        new.replace(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
