"""The tables of docs/regularizers.md, and docs/regularizers.png, made from the objects.

What a penalty is, its proximal operator and its source are read from its docstring, the rest from
what the object says of itself. ``make catalogue`` runs this.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from documents import with_part

from penalize import (
    EWC,
    L0,
    L1,
    L1L2,
    L2,
    MCP,
    SCAD,
    Anchored,
    Box,
    ExclusiveLasso,
    FusedLasso,
    GroupLasso,
    GroupMCP,
    Hoyer,
    Huber,
    LInf1,
    LogDet,
    LogSum,
    MaxNorm,
    MinMaxNorm,
    NonNegative,
    NoProximalOperatorError,
    NuclearNorm,
    Orthogonal,
    Regularizer,
    Simplex,
    Smoothness,
    SoftOrthogonal,
    SparseGroupLasso,
    SpectralNorm,
    UnitNorm,
)

DOCS = Path(__file__).parent.parent / "docs"

CATALOGUE: dict[str, list[Regularizer]] = {
    "Elements": [
        L1(1.0), L2(1.0), L1L2(1.0, 1.0), Huber(1.0), L0(1.0), MCP(1.0), SCAD(1.0), LogSum(1.0),
    ],
    "Groups": [
        GroupLasso(1.0, groups=0), SparseGroupLasso(1.0, groups=0), GroupMCP(1.0, groups=0),
        LInf1(1.0, groups=0), ExclusiveLasso(1.0, groups=0), Hoyer(1.0),
    ],
    "Matrices": [
        NuclearNorm(1.0), SpectralNorm(1.0), LogDet(1.0), Orthogonal(1.0), SoftOrthogonal(1.0),
    ],
    "Neighbours": [FusedLasso(1.0), Smoothness(1.0)],
    "Distances from a reference": [Anchored(np.zeros(2), L1(1.0)), EWC(np.ones(2), np.zeros(2))],
    "Constraints": [
        NonNegative(), Box(-1.0, 1.0), MaxNorm(1.0, groups=0), UnitNorm(groups=0),
        MinMaxNorm(0.5, 1.0, groups=0), Simplex(groups=0),
    ],
}  # fmt: skip

GAPS = {
    FusedLasso: "its prox runs on the host: not in a `tf.function(jit_compile=True)`",
    Smoothness: "its prox runs on the host: not in a `tf.function(jit_compile=True)`",
    NuclearNorm: "differentiable once; NumPy and PyTorch raise where there is a NaN",
    SpectralNorm: "differentiable once; NumPy and PyTorch raise where there is a NaN",
    LogDet: "differentiable once; NumPy and PyTorch raise where there is a NaN",
}
"""What a framework cannot do with it, and why."""


def tables() -> str:
    """The part of the page that is made from the objects, in Markdown."""
    parts = []
    for title, regularizers in CATALOGUE.items():
        rows = [
            f"## {title}\n",
            "| | penalty | prox | | shards | ρ | source |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *map(_row, regularizers),
        ]
        kinds = [type(r) for r in regularizers if type(r) in GAPS]
        gaps = [f"- `{kind.__name__}`: {GAPS[kind]}." for kind in kinds]
        parts.append("\n".join([*rows, *(["", *gaps] if gaps else [])]) + "\n")
    return "\n".join(parts)


def _row(r: Regularizer) -> str:
    doc = inspect.getdoc(type(r)) or ""
    paragraphs = [" ".join(p.split()) for p in doc.split("\n\n")]
    sentence = re.search(r"``prox``(?:,[^.]*?,)? (?:is )?(.*?)(?:\. |\.$)", " ".join(paragraphs))
    source = next(p for p in paragraphs if p.startswith("Source: "))
    how = _kind(r)
    prox = sentence[1] if sentence and how != "none" else ""
    name = "toward" if isinstance(r, Anchored) else type(r).__name__
    cells = (
        f"`{name}`",
        paragraphs[0].split(". ")[0].rstrip("."),
        prox,
        how,
        "local" if r.on_shards else "gathered",
        _convexity(r.weak_convexity),
        source.removeprefix("Source: ").rstrip("."),
    )
    return "| " + " | ".join(c.replace("|", "\\|").replace("``", "`") for c in cells) + " |"


def _kind(r: Regularizer) -> str:
    kinds = {True: "per element", False: "one step"}
    for per_element, kind in kinds.items():
        try:
            r.check_prox(per_element=per_element)
        except NoProximalOperatorError:
            continue
        return kind
    return "none"


def _convexity(rho: float | None) -> str:
    if rho is None:
        return ""
    return "∞" if math.isinf(rho) else f"{rho:.3g}"


# --- the picture ----------------------------------------------------------------------------


def _one(r: Regularizer) -> Callable[[np.ndarray], Any]:
    """A regularizer of each of many numbers alone."""
    return lambda t: np.array([float(r(np.array([x]))) for x in t])


def draw(path: Path) -> None:
    """Small multiples: each penalty of one number, its gradient, and its proximal operator."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    drawn = [
        L1(1.0), L2(0.5), L1L2(0.5, 0.25), Huber(1.0), L0(0.5), MCP(1.0), SCAD(0.7),
        LogSum(0.3, epsilon=0.2), NonNegative(), Box(-1.0, 1.0), Anchored(np.ones(1), L1(1.0)),
        MaxNorm(1.5, groups=()),
    ]  # fmt: skip
    t = np.linspace(-3, 3, 601)
    figure, grid = plt.subplots(3, 4, figsize=(12, 8.4), sharex=True, sharey=True)
    for r, axes in zip(drawn, grid.flat, strict=True):
        values = _one(r)(t)
        axes.plot(t, np.where(np.isinf(values), np.nan, values), color="#1f4e79", lw=2)
        if r.differentiable:
            slopes = np.array([r.gradient(np.array([x]))[0] for x in t])
            jumps = np.abs(np.diff(slopes, append=slopes[-1])) > 0.2
            axes.plot(t, np.where(jumps, np.nan, slopes), color="#c0504d", lw=1.5, ls="--")
        moved = np.array([r.prox(np.array([x]), 1.0)[0] for x in t])
        jumps = np.abs(np.diff(moved, append=moved[-1])) > 0.2
        axes.plot(t, t, color="#bbbbbb", lw=0.8)
        axes.plot(t, np.where(jumps, np.nan, moved), color="#2e8b57", lw=2)
        title = repr(r).replace("toward(<float64 1>", "toward(1")
        axes.set_title(title, fontsize=10, family="monospace")
        axes.set_ylim(-3, 3)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    handles = [
        plt.Line2D([], [], color="#1f4e79", lw=2, label="penalty Ω(w)"),
        plt.Line2D([], [], color="#c0504d", lw=1.5, ls="--", label="gradient"),
        plt.Line2D([], [], color="#2e8b57", lw=2, label="prox, step 1"),
    ]
    figure.legend(handles=handles, loc="upper center", ncols=3, frameon=False)
    figure.supxlabel("w")
    figure.tight_layout(rect=(0, 0, 1, 0.96))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Write the tables of the page, and its picture."""
    page = DOCS / "regularizers.md"
    text = with_part(page.read_text(encoding="utf-8"), "catalogue", tables())
    page.write_text(text, encoding="utf-8")
    draw(DOCS / "regularizers.png")


if __name__ == "__main__":
    main()
