"""How a warm step walks through penalize: files, calls, moves between them, and other plans' cost.

``python scripts/walks.py`` prints two tables. Every call of a function of penalize counts, and
every call that is in another file than the one before it. Plans of other models should cost a step
nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import nn

import penalize
from penalize import L1
from penalize.tables import table
from penalize.torch import regularize

SOURCE = str(Path(penalize.__file__).parent)


class Walk(NamedTuple):
    """What one call of a function passes through."""

    files: tuple[str, ...]
    calls: int
    moves: int


def walk(call: Callable[[], Any]) -> Walk:
    """Run a function, and count where it goes."""
    path: list[str] = []

    def look(frame: FrameType, event: str, _: Any) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(SOURCE):
            path.append(file.removeprefix(SOURCE).lstrip("/"))

    sys.setprofile(look)
    try:
        call()
    finally:
        sys.setprofile(None)
    moves = 1 + sum(one != other for one, other in pairwise(path))
    return Walk(tuple(dict.fromkeys(path)), len(path), moves)


def step(mode: str) -> Callable[[], Any]:
    """A warm step of a two-layer model in a mode, to be called again."""
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    attachment = regularize(model, L1(1e-3)).attach(optimizer, mode=mode)
    x = torch.ones(3, 6)

    def train() -> Any:
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()
        return attachment

    for _ in range(3):
        train()
    optimizer.zero_grad()
    model(x).sum().backward()
    return optimizer.step


def main() -> None:
    """Print both tables."""
    modes = ("gradient", "decoupled", "proximal")
    walks = {mode: walk(step(mode)) for mode in modes}
    rows = [(m, str(len(w.files)), str(w.calls), str(w.moves)) for m, w in walks.items()]
    print(table(("warm step", "files", "calls", "moves"), rows))
    for mode, found in walks.items():
        print(f"{mode}: {', '.join(found.files)}")
    plans: list[Any] = []
    counted = []
    for others in (0, 100, 1000):
        while len(plans) < others:
            plans.append(regularize(nn.Linear(2, 2), L1(1e-3)))
        counted.append((str(others), str(walk(step("gradient")).calls)))
    print()
    print(table(("other plans alive", "calls of a gradient step"), counted))


if __name__ == "__main__":
    main()
