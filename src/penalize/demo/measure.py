"""What a penalty left of a network, counted on the network itself."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from penalize.demo.data import Digits
from penalize.demo.training import Network, Trained


@dataclass(frozen=True)
class DemoRow:
    """The figures of one run. Zero means ``== 0`` throughout."""

    model: str
    rules: str
    """The rules as one writes them; empty where there are none."""

    strengths: str
    mode: str
    accuracy: float
    """The accuracy on the test images, from 0 to 1."""

    data_loss: float
    """Mean cross entropy on the training images, without the penalty."""

    penalty: float
    zeros: int
    """Kernel weights that are exactly zero, in both layers."""

    weights: int
    """Kernel weights in all."""

    pixels: int
    """Input pixels left; see :func:`pixels_used`."""

    pixels_in_all: int
    units: int
    """Hidden units left; see :func:`units_used`."""

    units_in_all: int

    @property
    def zeros_percent(self) -> float:
        """Exact zeros among the kernel weights, in percent."""
        return 100 * self.zeros / self.weights


Row = TypeVar("Row")


class Spread(NamedTuple):
    """A figure of several runs."""

    median: float
    least: float
    most: float


def spread(rows: Sequence[Row], figure: Callable[[Row], float]) -> Spread:
    """One figure of the runs of one contender."""
    values = [figure(row) for row in rows]
    return Spread(statistics.median_low(values), min(values), max(values))


def pixels_used(model: Network) -> Tensor:
    """Whether any weight that leaves it is nonzero, for each input pixel."""
    return (model.hidden.weight != 0).any(dim=0)


def units_used(model: Network) -> Tensor:
    """Whether a weight that reaches it and one that leaves it are nonzero, for each hidden unit."""
    return (model.hidden.weight != 0).any(dim=1) & (model.out.weight != 0).any(dim=0)


def measure(trained: Trained, data: Digits) -> DemoRow:
    """The figures of a run."""
    contender, model = trained.contender, trained.model
    kernels = (model.hidden.weight, model.out.weight)
    pixels, units = pixels_used(model), units_used(model)
    with torch.no_grad():
        hits = model(data.test_images).argmax(dim=1) == data.test_labels
    return DemoRow(
        model=contender.name,
        rules=repr(contender.rules) if contender.rules else "",
        strengths=contender.strengths,
        mode=contender.mode if contender.rules else "",
        accuracy=float(hits.double().mean()),
        data_loss=trained.curves.data_loss[-1],
        penalty=trained.curves.penalty[-1],
        zeros=sum(int((kernel == 0).sum()) for kernel in kernels),
        weights=sum(kernel.numel() for kernel in kernels),
        pixels=int(pixels.sum()),
        pixels_in_all=pixels.numel(),
        units=int(units.sum()),
        units_in_all=units.numel(),
    )
