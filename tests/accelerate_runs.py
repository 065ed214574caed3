"""Loops with accelerate, for tests of its integration."""

from __future__ import annotations

from typing import Any

import by_hand
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch import nn
from torch.utils.data import DataLoader


def forget() -> None:
    for state in (AcceleratorState, GradientState, PartialState):
        state._shared_state.clear()


def loader(count: int = 10, size: int = 4) -> DataLoader[Any]:
    x, y = by_hand.data(4 * count)
    return DataLoader(list(zip(x, y, strict=True)), batch_size=size)  # type: ignore[arg-type]


def loop(
    accelerator: Accelerator, model: nn.Module, optimizer: Any, data: Any, clip: float | None = None
) -> None:
    for x, y in data:
        with accelerator.accumulate(model):
            accelerator.backward(by_hand.loss_of(model, x, y))
            if clip is not None and accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
