"""What a penalty left of a network, counted on the network itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from penalize.demo.data import Digits
from penalize.demo.training import Trained


@dataclass(frozen=True)
class Measured:
    """The figures of one row of the table. Zero means ``== 0`` throughout."""

    model: str
    rules: str
    mode: str
    accuracy: float
    """On the test images, from 0 to 1."""

    data_loss: float
    """Mean cross entropy on the training images, without the penalty."""

    penalty: float
    zeros: int
    """Kernel weights that are exactly zero, in both layers."""

    weights: int
    """Kernel weights in all."""

    pixels: int
    """Input pixels with any weight left."""

    units: int
    """Hidden units with any weight left on both sides."""

    @property
    def zeros_percent(self) -> float:
        """Exact zeros among the kernel weights, in percent."""
        return 100 * self.zeros / self.weights


def measure(trained: Trained, data: Digits) -> Measured:
    """One row of the table."""
    hidden, out = trained.model.hidden.weight.detach(), trained.model.out.weight.detach()
    with torch.no_grad():
        hits = trained.model(data.test_images).argmax(dim=1) == data.test_labels
    return Measured(
        model=trained.contender.name,
        rules=trained.contender.declared,
        mode=trained.contender.mode if trained.contender.rules else "",
        accuracy=float(hits.double().mean()),
        data_loss=trained.curves.data_loss[-1],
        penalty=trained.curves.penalty[-1],
        zeros=int((hidden == 0).sum()) + int((out == 0).sum()),
        weights=hidden.numel() + out.numel(),
        pixels=int((hidden != 0).any(dim=0).sum()),
        units=int(((hidden != 0).any(dim=1) & (out != 0).any(dim=0)).sum()),
    )
