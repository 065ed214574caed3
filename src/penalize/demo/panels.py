"""The rows of the picture. Within a row every model is drawn on the same scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import LogLocator
from numpy.typing import NDArray

from penalize.demo.measure import DemoRow, pixels_used, units_used
from penalize.demo.report import percent
from penalize.demo.training import Trained

# From the palette of Okabe and Ito (2008), which colour-blind people can tell apart.
BLUE, ZERO, GREEN = "#0072B2", "#D55E00", "#007a5a"
INK, GREY, PALE = "#222222", "#6e6e6e", "#ededed"
_USED = LinearSegmentedColormap.from_list("used", ["#bcd9ec", BLUE, "#002a45"])
_BINS = 61

Floats = NDArray[np.float32]


def draw_pixels(axes: Sequence[Axes], runs: Sequence[Trained], rows: Sequence[DemoRow]) -> None:
    """The norm of each pixel's weights; a crossed pixel has none left."""
    norms = [np.linalg.norm(_kernels(run)[0], axis=0) for run in runs]
    used = [pixels_used(run.model).numpy() for run in runs]
    for ax, row in zip(axes, rows, strict=True):
        ax.set_xlabel(f"{row.pixels} of {row.pixels_in_all} pixels left")
    _draw_maps(axes, norms, used, shape=(8, 8), cross=52)


def draw_units(axes: Sequence[Axes], runs: Sequence[Trained], rows: Sequence[DemoRow]) -> None:
    """The norm of what leaves each hidden unit; a crossed unit is cut off on one side or both."""
    norms = [np.linalg.norm(_kernels(run)[1], axis=0) for run in runs]
    used = [units_used(run.model).numpy() for run in runs]
    for ax, row in zip(axes, rows, strict=True):
        ax.set_xlabel(f"{row.units} of {row.units_in_all} hidden units left")
    _draw_maps(axes, norms, used, shape=(4, 16), cross=11)


def _draw_maps(
    axes: Sequence[Axes],
    norms: Sequence[Floats],
    used: Sequence[NDArray[np.bool_]],
    *,
    shape: tuple[int, int],
    cross: float,
) -> None:
    top = max(float(values.max()) for values in norms)
    for ax, values, kept in zip(axes, norms, used, strict=True):
        # What is used is told by the weights, not by the norms: a small norm may round to zero.
        image = np.ma.masked_array(values, ~kept).reshape(shape)
        ax.set_facecolor(PALE)
        ax.imshow(image, cmap=_USED, vmin=0, vmax=top, aspect="auto")
        down, across = np.nonzero(~kept.reshape(shape))
        ax.scatter(across, down, marker="x", s=cross, color=ZERO, linewidths=1.2)
        ax.set_xticks(np.arange(0.5, shape[1] - 1), [])
        ax.set_yticks(np.arange(0.5, shape[0] - 1), [])
        ax.tick_params(length=0)
        ax.grid(color="white", linewidth=1)
        ax.spines[:].set_visible(False)


def draw_weights(axes: Sequence[Axes], runs: Sequence[Trained], rows: Sequence[DemoRow]) -> None:
    """Both layers' weights as a histogram; the exact zeros stand apart, as a bar of their own."""
    weights = [np.concatenate([kernel.ravel() for kernel in _kernels(run)]) for run in runs]
    reach = max(1.2, *(float(np.abs(w).max()) for w in weights))
    edges = np.linspace(-reach, reach, _BINS + 1)
    for ax, w, row in zip(axes, weights, rows, strict=True):
        ax.hist(w[w != 0], bins=edges.tolist(), color=BLUE)
        _draw_zeros(ax, row, reach)
        ax.set_ylim(0.7, 5 * row.weights)
        _scale(ax, first=ax is axes[0])


def _draw_zeros(ax: Axes, row: DemoRow, reach: float) -> None:
    """The bar of the exact zeros, to the left of the histogram, behind a gap."""
    place = -1.4 * reach
    ax.bar(place, row.zeros, width=0.26 * reach, color=ZERO)
    ax.text(
        place,
        max(row.zeros, 0.7) * 1.35,
        percent(row.zeros_percent),
        ha="center",
        color=ZERO if row.zeros else GREY,
        fontweight="bold" if row.zeros else "normal",
    )
    ax.set_xlim(-1.75 * reach, 1.05 * reach)
    ax.set_xticks([place, -1, 0, 1], ["exactly 0", "−1", "0", "1"])
    if row.zeros:
        ax.get_xticklabels()[0].set_color(ZERO)


def draw_curves(axes: Sequence[Axes], runs: Sequence[Trained]) -> None:
    """Data loss and penalty, apart, as they went; each with its last value."""
    values = [run.curves.data_loss + [p for p in run.curves.penalty if p > 0] for run in runs]
    low, high = min(map(min, values)), max(map(max, values))
    for ax, run in zip(axes, runs, strict=True):
        loss, penalty = run.curves.data_loss, run.curves.penalty
        _curve(ax, loss, f"data loss {loss[-1]:.4f}", 1.15, color=BLUE)
        if any(penalty):
            _curve(ax, penalty, f"penalty {penalty[-1]:.4f}", 1.03, color=GREEN, linestyle="--")
        else:
            ax.text(0, 1.03, "no penalty", transform=ax.transAxes, color=GREY)
        ax.set_ylim(low / 1.5, high * 1.5)
        _epochs(ax, len(loss) - 1)
        _scale(ax, first=ax is axes[0])


def _curve(ax: Axes, values: Sequence[float], label: str, height: float, **style: Any) -> None:
    ax.plot(values, linewidth=1.6, **style)
    ax.text(0, height, label, transform=ax.transAxes, color=style["color"])


def _epochs(ax: Axes, last: int) -> None:
    """The two ends only, inside the panel, so that neighbours do not run into each other."""
    ax.set_xlim(0, last)
    ax.set_xticks([0, last], ["epoch 0", str(last)])
    first_label, last_label = ax.get_xticklabels()
    first_label.set_horizontalalignment("left")
    last_label.set_horizontalalignment("right")


def _scale(ax: Axes, *, first: bool) -> None:
    """A log scale with decades only, and figures on the first panel of the row only."""
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(numticks=6))
    ax.minorticks_off()
    ax.tick_params(labelleft=first)


def _kernels(run: Trained) -> tuple[Floats, Floats]:
    hidden, out = run.model.hidden.weight, run.model.out.weight
    return hidden.detach().numpy(), out.detach().numpy()
