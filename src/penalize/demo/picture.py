"""The picture: a column per model, and in it pixels, weights and losses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from penalize.demo import panels
from penalize.demo.measure import Measured
from penalize.demo.report import percent
from penalize.demo.training import Trained

_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": panels.INK,
    "axes.edgecolor": panels.GREY,
    "axes.labelcolor": panels.INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": panels.INK,
    "xtick.labelsize": 8,
    "ytick.color": panels.INK,
    "ytick.labelsize": 8,
}

_ROWS = ("pixels the\nmodel uses", "weights\n(count)", "over the\nepochs")


def write(path: Path, runs: Sequence[Trained], rows: Sequence[Measured]) -> None:
    """Draw the picture and save it as PNG, 1,800 pixels wide."""
    with matplotlib.rc_context(_STYLE):
        _draw(runs, rows).savefig(path, dpi=150, facecolor="white")


def _draw(runs: Sequence[Trained], rows: Sequence[Measured]) -> Figure:
    """The figure on a canvas of its own: no display, no state that others share."""
    figure = Figure(figsize=(12, 7.6))
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        3, len(runs), height_ratios=(1.45, 1, 1), hspace=0.42, wspace=0.12,
        left=0.105, right=0.99, top=0.865, bottom=0.06,
    )  # fmt: skip
    axes = [[figure.add_subplot(grid[i, j]) for j in range(len(runs))] for i in range(3)]
    panels.draw_pixels(axes[0], runs, rows)
    panels.draw_weights(axes[1], runs, rows)
    panels.draw_curves(axes[2], runs)
    for label, row in zip(_ROWS, axes, strict=True):
        middle = row[0].get_position().y0 + row[0].get_position().height / 2
        figure.text(0.012, middle, label, va="center", fontsize=10, linespacing=1.5)
    for ax, measured in zip(axes[0], rows, strict=True):
        _head(figure, ax, measured)
    return figure


def _head(figure: Figure, ax: Axes, row: Measured) -> None:
    """What the model is, how good it is, and how much of it is zero."""
    box = ax.get_position()
    middle = box.x0 + box.width / 2
    figure.text(middle, 0.962, row.model, ha="center", fontsize=13, fontweight="bold")
    figure.text(middle, 0.929, f"{percent(100 * row.accuracy)} correct", ha="center", fontsize=10)
    figure.text(
        middle,
        0.897,
        f"{percent(row.zeros_percent)} exact zeros",
        ha="center",
        fontsize=10,
        color=panels.ZERO if row.zeros else panels.GREY,
        fontweight="bold" if row.zeros else "normal",
    )
