"""Trainings with the Trainer of transformers, small and quiet, for tests of its callback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import by_hand
import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments


class Regression(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = by_hand.network()

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": by_hand.loss_of(self.model, x, labels)}


def dataset(count: int = 10) -> list[dict[str, torch.Tensor]]:
    x, y = by_hand.data(4 * count)
    return [{"x": a, "labels": b} for a, b in zip(x, y, strict=True)]


def trainer(
    folder: Path,
    *callbacks: TrainerCallback,
    model: nn.Module | None = None,
    make: Any = None,
    count: int = 10,
    **arguments: Any,
) -> Trainer:
    model = model or Regression()
    defaults: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "num_train_epochs": 1,
        "learning_rate": by_hand.RATE,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "train_sampling_strategy": "sequential",
        "use_cpu": True,
        "disable_tqdm": True,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "weight_decay": 0.0,
        "dataloader_pin_memory": False,
    }
    how = TrainingArguments(**{**defaults, **arguments})
    optimizer = None if make is None else make(model.parameters(), lr=by_hand.RATE)
    return Trainer(
        model=model,
        args=how,
        train_dataset=dataset(count),  # type: ignore[arg-type]
        callbacks=list(callbacks),
        optimizers=(optimizer, None),
    )
