"""The rows of the picture. Within a row every model is drawn on the same scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from penalize.demo.measure import Measured
from penalize.demo.report import percent
from penalize.demo.training import Trained

# From the palette of Okabe and Ito (2008), which colour-blind people can tell apart.
BLUE, ZERO, GREEN = "#0072B2", "#D55E00", "#007a5a"
INK, GREY, PALE = "#222222", "#767676", "#ededed"
_USED = LinearSegmentedColormap.from_list("used", ["#bcd9ec", BLUE, "#002a45"])
_BINS = 61


def draw_pixels(axes: Sequence[Axes], runs: Sequence[Trained], rows: Sequence[Measured]) -> None:
    """The norm of each pixel's weights; a crossed pixel has none left."""
    norms = [_kernels(run)[0].T.reshape(8, 8, -1) for run in runs]
    maps = [np.linalg.norm(kernel, axis=2) for kernel in norms]
    top = max(float(image.max()) for image in maps)
    for ax, image, row in zip(axes, maps, rows, strict=True):
        unused = image == 0
        ax.set_facecolor(PALE)
        ax.imshow(np.ma.masked_array(image, unused), cmap=_USED, vmin=0, vmax=top)
        down, across = np.nonzero(unused)
        ax.scatter(across, down, marker="x", s=55, color=ZERO, linewidths=1.4)
        ax.set_xticks(np.arange(0.5, 7), [])
        ax.set_yticks(np.arange(0.5, 7), [])
        ax.tick_params(length=0)
        ax.grid(color="white", linewidth=1)
        ax.spines[:].set_visible(False)
        ax.set_xlabel(f"{row.pixels} of 64 pixels left\n{row.units} of 64 hidden units left")


def draw_weights(axes: Sequence[Axes], runs: Sequence[Trained], rows: Sequence[Measured]) -> None:
    """Both layers' weights as a histogram, and the exact zeros as a bar of their own."""
    weights = [np.concatenate([kernel.ravel() for kernel in _kernels(run)]) for run in runs]
    reach = max(float(np.abs(w).max()) for w in weights)
    edges = np.linspace(-reach, reach, _BINS + 1)
    for ax, w, row in zip(axes, weights, rows, strict=True):
        ax.hist(w[w != 0], bins=edges, color=BLUE)
        if row.zeros:
            ax.bar(0, row.zeros, width=3 * (edges[1] - edges[0]), color=ZERO)
        ax.set_yscale("log")
        ax.set_ylim(0.7, 8 * max(row.weights for row in rows) / 2)
        ax.set_xlim(-reach, reach)
        _share_scale(ax, ax is axes[0])
        says = f"{percent(row.zeros_percent)} exactly 0" if row.zeros else "none exactly 0"
        ax.text(0.5, 0.98, says, transform=ax.transAxes, ha="center", va="top",
                color=ZERO if row.zeros else GREY)  # fmt: skip


def draw_curves(axes: Sequence[Axes], runs: Sequence[Trained]) -> None:
    """Data loss and penalty, apart, as they went; each with its last value."""
    values = [run.curves.data_loss + [p for p in run.curves.penalty if p > 0] for run in runs]
    low, high = min(map(min, values)), max(map(max, values))
    for ax, run in zip(axes, runs, strict=True):
        loss, penalty = run.curves.data_loss, run.curves.penalty
        ax.plot(loss, color=BLUE, linewidth=1.6)
        ax.text(0, 1.13, f"data loss {loss[-1]:.3g}", transform=ax.transAxes, color=BLUE)
        if any(penalty):
            ax.plot(penalty, color=GREEN, linewidth=1.6, linestyle=(0, (4, 1.5)))
        says = f"penalty {penalty[-1]:.3g}" if any(penalty) else "no penalty"
        ax.text(0, 1.02, says, transform=ax.transAxes, color=GREEN if any(penalty) else GREY)
        ax.set_yscale("log")
        ax.set_ylim(low / 1.5, high * 1.5)
        ax.set_xlim(0, len(loss) - 1)
        _share_scale(ax, ax is axes[0])


def _share_scale(ax: Axes, first: bool) -> None:
    """Decades only, and figures on the first panel of the row only."""
    ax.yaxis.set_major_locator(LogLocator(numticks=6))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.minorticks_off()
    ax.tick_params(labelleft=first)


def _kernels(run: Trained) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    hidden, out = run.model.hidden.weight, run.model.out.weight
    return hidden.detach().numpy(), out.detach().numpy()
