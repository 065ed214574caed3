"""The picture: a column per model, and in it pixels, hidden units, weights and losses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from penalize.demo import panels
from penalize.demo.measure import DemoRow
from penalize.demo.report import percent
from penalize.demo.training import Trained

_STYLE: dict[Any, Any] = {
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


class _Row(NamedTuple):
    label: str
    bottom: float
    height: float


# Inches. The maps must be square to the pixel, so nothing here is left to a layout engine.
_WIDTH, _HEIGHT = 12.0, 8.65
_LEFT, _PANEL, _GAP = 1.22, 1.98, 0.18
_PIXELS = _Row("pixels\nin use", 5.44, _PANEL)
_UNITS = _Row("hidden\nunits\nin use", 4.56, _PANEL / 4)
_WEIGHTS = _Row("weights,\ncounted", 2.58, 1.4)
_CURVES = _Row("over the\nepochs", 0.3, 1.35)


def write(path: Path, runs: Sequence[Trained], rows: Sequence[DemoRow]) -> None:
    """Draw the picture and save it as PNG, 1,800 pixels wide."""
    with matplotlib.rc_context(_STYLE):
        _draw(runs, rows).savefig(path, dpi=150, facecolor="white")


def _draw(runs: Sequence[Trained], rows: Sequence[DemoRow]) -> Figure:
    """The figure on a canvas of its own: no display, no state that others share."""
    figure = Figure(figsize=(_WIDTH, _HEIGHT))
    FigureCanvasAgg(figure)
    for column, row in enumerate(rows):
        _head(figure, (_left(column) + _PANEL / 2) / _WIDTH, row)
    panels.draw_pixels(_axes(figure, _PIXELS, len(runs)), runs, rows)
    panels.draw_units(_axes(figure, _UNITS, len(runs)), runs, rows)
    panels.draw_weights(_axes(figure, _WEIGHTS, len(runs)), runs, rows)
    panels.draw_curves(_axes(figure, _CURVES, len(runs)), runs)
    return figure


def _left(column: int) -> float:
    return _LEFT + column * (_PANEL + _GAP)


def _axes(figure: Figure, row: _Row, columns: int) -> list[Axes]:
    """One row of panels, with its label on the left."""
    bottom, height = row.bottom / _HEIGHT, row.height / _HEIGHT
    figure.text(0.012, bottom + height / 2, row.label, va="center", fontsize=10, linespacing=1.4)
    return [
        figure.add_axes((_left(column) / _WIDTH, bottom, _PANEL / _WIDTH, height))
        for column in range(columns)
    ]


def _head(figure: Figure, middle: float, row: DemoRow) -> None:
    """What the model is, how good it is, and how much of it is zero."""

    def line(inches: float, text: str, **style: Any) -> None:
        figure.text(middle, inches / _HEIGHT, text, ha="center", **style)

    line(8.35, row.model, fontsize=13, fontweight="bold")
    line(8.12, f"λ = {row.strengths}" if row.strengths else "", color=panels.GREY)
    line(7.83, f"{percent(100 * row.accuracy)} correct", fontsize=10.5)
    style = {"color": panels.ZERO, "fontweight": "bold"} if row.zeros else {"color": panels.GREY}
    line(7.57, f"{percent(row.zeros_percent)} exact zeros", fontsize=10.5, **style)
