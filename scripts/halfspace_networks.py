"""Two networks on mini-batches: accuracy against exact zeros, by mode.

One is the demo's, on the digits. The other has a million weights, and reads letters.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from string import ascii_lowercase
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import torch
from documents import DOCS, table
from halfspace_letters import SIDE, Letters, letters
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR

from penalize import L1, Regularizer, kernels
from penalize.demo.contenders import Contender
from penalize.demo.data import digits
from penalize.demo.measure import measure
from penalize.demo.training import train
from penalize.torch import regularize

MODES = ("gradient", "proximal", "halfspace")
COLOURS = {"gradient": "#6e6e6e", "proximal": "#D55E00", "halfspace": "#0072B2"}
WIDTHS, EPOCHS, BATCH, RATE = (SIDE * SIDE, 850, 450, 26), 8, 64, 1e-3


class Point(NamedTuple):
    """What one strength leaves in one mode."""

    mode: str
    strength: float
    zeros: float
    """Exact zeros among the weights of the kernels, in percent."""

    accuracy: float
    """On the test images, in percent."""

    @property
    def cells(self) -> list[str]:
        """Its row of a table."""
        zeros, accuracy = f"{self.zeros:.1f} %", f"{self.accuracy:.1f} %"
        return [f"`{self.mode}`", f"{self.strength:g}", zeros, accuracy]


HEAD = ("mode", "λ", "zeros", "accuracy")


# --- the demo's -----------------------------------------------------------------------------------


def small() -> str:
    """The demo's network under an L1, with its picture: the table."""
    data = digits()

    def point(mode: str, strength: float) -> Point:
        contender = Contender(mode, L1(strength), mode)
        runs = [measure(train(contender, data, epochs=30, seed=n), data) for n in range(3)]
        zeros = float(np.median([run.zeros_percent for run in runs]))
        return Point(mode, strength, zeros, 100 * float(np.median([run.accuracy for run in runs])))

    points = [point(mode, each) for mode in MODES for each in (1e-4, 3e-4, 1e-3, 2e-3, 4e-3)]
    figure, axes = _pyplot().subplots(figsize=(6, 4))
    draw(axes, points)
    _save(figure, "halfspace.png")
    return table(HEAD, [each.cells for each in points])


# --- a million weights ----------------------------------------------------------------------------


def large() -> str:
    """A network that reads letters, under an L1, with its picture: the table."""
    data = letters()
    without = score(trained(data, None, "gradient"), data)
    print("without a penalty", without, flush=True)
    points = []
    for mode in MODES:
        for strength in (3e-6, 1e-5, 3e-5, 1e-4, 3e-4):
            model = trained(data, L1(strength), mode)
            points.append(Point(mode, strength, zeros(model), score(model, data)))
            print(*points[-1].cells, flush=True)
    picture(data, without, points)
    return f"Without a penalty the accuracy is {without:.1f} %.\n\n" + table(
        HEAD, [each.cells for each in points]
    )


def network() -> nn.Sequential:
    """Three linear layers, of 1,060,600 weights; always the same start."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(WIDTHS):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def trained(data: Letters, penalty: Regularizer | None, mode: str) -> nn.Sequential:
    """The network, by Adam on mini-batches, with a rate that falls to 0."""
    model = network()
    optimizer = Adam(model.parameters(), lr=RATE)
    if penalty is not None:
        regularize(model, {kernels: penalty}).attach(optimizer, mode=mode)
    order, steps = torch.Generator().manual_seed(0), EPOCHS * -(-len(data.x) // BATCH)
    falling = LambdaLR(optimizer, lambda step: 1 - step / steps)
    for _ in range(EPOCHS):
        for i in torch.randperm(len(data.x), generator=order).split(BATCH):
            optimizer.zero_grad()
            cross_entropy(model(data.x[i]), data.y[i]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            falling.step()
    return model


def score(model: nn.Module, data: Letters) -> float:
    """The accuracy on the test images, in percent."""
    with torch.no_grad():
        return 100 * float((model(data.x_test).argmax(1) == data.y_test).double().mean())


def zeros(model: nn.Sequential) -> float:
    """Exact zeros in the kernels, in percent."""
    found = [layer.weight for layer in model if isinstance(layer, nn.Linear)]
    return 100 * sum(int((w == 0).sum()) for w in found) / sum(w.numel() for w in found)


# --- pictures -------------------------------------------------------------------------------------


def picture(data: Letters, without: float, points: Sequence[Point]) -> None:
    """Some of the images, and accuracy against zeros."""
    figure = _pyplot().figure(figsize=(7.2, 5.2))
    shown = 12
    grid = figure.add_gridspec(2, shown, height_ratios=(1, 7))
    for i in range(shown):
        axes = figure.add_subplot(grid[0, i])
        axes.imshow(data.x[i].reshape(SIDE, SIDE), cmap="gray_r")
        axes.set_title(ascii_lowercase[int(data.y[i])], fontsize=9)
        axes.set_axis_off()
    axes = figure.add_subplot(grid[1, :])
    axes.axhline(without, color=COLOURS["gradient"], linewidth=1, linestyle="--")
    axes.annotate(
        "no penalty", (0.5, without), xycoords=("axes fraction", "data"), ha="center", va="bottom"
    )
    draw(axes, points)
    _save(figure, "halfspace-letters.png")


def draw(axes: Any, points: Sequence[Point]) -> None:
    """A line for each mode."""
    for mode in MODES:
        of = [(each.zeros, each.accuracy) for each in points if each.mode == mode]
        axes.plot(*zip(*of, strict=True), marker="o", markersize=5, label=mode, color=COLOURS[mode])
    axes.set_xlabel("exact zeros in the kernels, %")
    axes.set_ylabel("accuracy on the test images, %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower center")


def _pyplot() -> Any:
    mpl.use("agg")
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, name: str) -> None:
    figure.tight_layout()
    figure.savefig(DOCS / name, dpi=120)
