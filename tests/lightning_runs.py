"""Trainings with Lightning, small and quiet, for tests of its callback."""

from __future__ import annotations

from typing import Any

import by_hand
import pytest
from by_hand import STRENGTHS
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import SGD
from torch.utils.data import DataLoader

from penalize import L1, L2, kernels
from penalize.integrations.lightning import PenalizeCallback

QUIET = [pytest.mark.filterwarnings(f"ignore:{advice}") for advice in by_hand.ADVICE]

RULES = {kernels: L2(STRENGTHS[1]), "model.0": L1(STRENGTHS[0])}


class Regression(LightningModule):
    def __init__(self, make: Any = SGD) -> None:
        super().__init__()
        self.model = by_hand.network()
        self.make = make
        self.none_at: int | None = None

    def training_step(self, batch: Any, number: int) -> Any:
        return None if number == self.none_at else by_hand.loss_of(self.model, *batch)

    def configure_optimizers(self) -> Any:
        return self.make(self.parameters(), lr=by_hand.RATE)


def loader(count: int = 10) -> DataLoader[Any]:
    x, y = by_hand.data(4 * count)
    return DataLoader(list(zip(x, y, strict=True)), batch_size=4)  # type: ignore[arg-type]


def trainer(*callbacks: Callback, **arguments: Any) -> Trainer:
    defaults = {
        **dict.fromkeys(
            ["logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"], False
        ),
        **{"accelerator": "cpu", "precision": "64-true", "max_epochs": 1},
    }
    return Trainer(callbacks=list(callbacks), **{**defaults, **arguments})


def fitted(
    callback: PenalizeCallback, module: Regression | None = None, **arguments: Any
) -> Regression:
    module = module or Regression()
    trainer(callback, **arguments).fit(module, loader())
    return module
