"""Pictures of a path, and a page of them. Loaded when one is asked for."""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path as File
from string import Template

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from penalize import __version__
from penalize.errors import PathError
from penalize.selection.folds import ALL
from penalize.selection.result import Path, Summary

LINES = 40
"""The most weights that are drawn one by one; of more, the norm of each parameter is."""

_COLORS = {"best": "#c2410c", "one standard error": "#1d4ed8"}

Panel = Callable[[Path, Axes], None]


def draw(path: Path, file: File) -> None:
    """All panels beside each other, in the format that the file's ending says."""
    figure = Figure(figsize=(14, 4.2), layout="constrained")
    for panel, ax in zip(_PANELS, figure.subplots(1, len(_PANELS)), strict=True):
        panel(path, ax)
    figure.savefig(file, dpi=120)


def write_page(path: Path, file: File) -> None:
    """A page by itself: pictures as SVG within it, and the table."""
    rows = "\n".join(_line(path, each) for each in path.summary)
    values = {
        "version": __version__,
        "choice": _choice(path),
        "figures": "\n".join(_figure(path, panel) for panel in _PANELS),
        "rows": rows,
        "notes": "".join(f"<p>{html.escape(note)}</p>" for note in path.notes),
    }
    file.write_text(_PAGE.substitute(values), "utf-8")


# --- the panels ---------------------------------------------------------------------------------


def weights_along(path: Path, ax: Axes) -> None:
    """The weights along the path where they are few; otherwise the norm of each parameter."""
    try:
        values = {name: path.doubles(name) for name in path.penalized}
    except PathError:
        ax.plot(path.strengths, [each.norm for each in path.summary], "o-", ms=3)
        _finish(path, ax, "norm of the penalized weights")
        return
    strengths = path.strengths
    if sum(w.shape[1] for w in values.values()) <= LINES:
        for w in values.values():
            ax.plot(strengths, w, lw=1.4)
        _finish(path, ax, "weight")
        return
    for name, w in values.items():
        # The library leaves out what begins with "_", and takes what stands in "$" for a formula.
        ax.plot(strengths, np.linalg.norm(w, axis=1), "o-", ms=3, lw=1.4, label=f" {name}")
    _finish(path, ax, "norm")
    for text in ax.legend(fontsize=8).get_texts():
        text.set_parse_math(False)


def held_out(path: Path, ax: Axes) -> None:
    """The held-out loss with its standard errors, and both choices."""
    known = [each for each in path.summary if math.isfinite(each.loss)]
    if known:
        ax.errorbar(
            [each.strength for each in known],
            [each.loss for each in known],
            [0.0 if math.isnan(each.error) else each.error for each in known],
            fmt="o-",
            ms=3,
            lw=1.4,
            capsize=2,
            color="#374151",
        )
    else:
        ax.text(0.5, 0.5, "nothing was held out", ha="center", transform=ax.transAxes)
    _finish(path, ax, "loss on held-out samples")


def front(path: Path, ax: Axes) -> None:
    """What is left, against how good it is."""
    scored = any(math.isfinite(each.score) for each in path.summary)
    known = [each for each in path.summary if math.isfinite(each.score if scored else each.loss)]
    xs = [100 * each.nonzero for each in known]
    ys = [each.score if scored else each.loss for each in known]
    ax.plot(xs, ys, "o-", ms=4, lw=1, color="#374151")
    for word, strength in path.chosen.items():
        for each, x, y in zip(known, xs, ys, strict=True):
            if each.strength == strength:
                ax.plot([x], [y], "o", ms=9, mfc="none", mew=2, color=_COLORS[word], label=word)
    ax.set_xlabel("weights that are not zero, %")
    ax.set_ylabel("score on held-out samples" if scored else "loss on held-out samples")
    if path.chosen:
        ax.legend(fontsize=8)
    _clean(ax)


_PANELS: Sequence[Panel] = (weights_along, held_out, front)


def _finish(path: Path, ax: Axes, ylabel: str) -> None:
    for word, strength in path.chosen.items():
        ax.axvline(strength, color=_COLORS[word], ls="--", lw=1.2, label=word)
    if min(path.strengths) > 0 and len(path.strengths) > 1:  # one alone has no scale
        ax.set_xscale("log")
    ax.invert_xaxis()  # from strong to weak, as the path went
    ax.set_xlabel("strength")
    ax.set_ylabel(ylabel)
    if path.chosen and ylabel.startswith("loss"):
        ax.legend(fontsize=8)
    _clean(ax)


def _clean(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.25)


# --- the page -----------------------------------------------------------------------------------


def _figure(path: Path, panel: Panel) -> str:
    figure = Figure(figsize=(5.2, 3.8), layout="constrained")
    panel(path, figure.subplots())
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    svg = text[text.index("<svg") :]
    # Each picture is scaled by the page; ids must differ between the pictures in it.
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    prefix = panel.__name__
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{prefix}-", svg)
    caption = html.escape((panel.__doc__ or "").strip())
    label = f'role="img" aria-label="{caption}"'
    return f"<figure {label}>{svg}<figcaption>{caption}</figcaption></figure>"


def _line(path: Path, each: Summary) -> str:
    words = [word for word, strength in path.chosen.items() if strength == each.strength]
    kind = ' class="chosen"' if words else ""
    numbers = (each.strength, each.loss, each.error, each.score, 100 * each.nonzero, each.norm)
    cells = "".join(f"<td>{_number(x)}</td>" for x in numbers)
    return f"<tr{kind}>{cells}<td>{html.escape(', '.join(words))}</td></tr>"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4g}"


def _choice(path: Path) -> str:
    if not path.chosen:
        return "<p>Nothing was held out in every fold, so no strength is chosen.</p>"
    folds = len({row.fold for row in path.rows if row.fold != ALL})
    found = {each.strength: each for each in path.summary}
    lines = []
    for word, strength in path.chosen.items():
        each = found[strength]
        lines.append(
            f'<li style="border-color: {_COLORS[word]}"><b>{_number(strength)}</b> '
            f"<span>{html.escape(word)}: loss {_number(each.loss)} ± {_number(each.error)}, "
            f"{100 * each.nonzero:.1f} % of the weights are left</span></li>"
        )
    return f"<p>Chosen over {folds} folds:</p><ul>{''.join(lines)}</ul>"


_PAGE = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Regularization path</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1200px; padding: 1rem;
         color: #111827; background: #fff; }
  h1 { font-size: 1.4rem; margin: 0.5rem 0; }
  ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: 0.75rem; }
  li { border-left: 4px solid; padding: 0.25rem 0.75rem; background: #f9fafb; }
  li b { font-size: 1.2rem; margin-right: 0.5rem; }
  .figures { display: grid; gap: 1rem;
             grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); }
  figure { margin: 0; }
  figure svg { width: 100%; height: auto; display: block; }
  figcaption { font-size: 0.85rem; color: #4b5563; }
  .scroll { overflow-x: auto; margin-top: 1rem; }
  table { border-collapse: collapse; font-size: 0.9rem; min-width: 100%; }
  th, td { padding: 0.3rem 0.7rem; text-align: right; white-space: nowrap; }
  th { border-bottom: 2px solid #d1d5db; }
  td { border-bottom: 1px solid #e5e7eb; font-variant-numeric: tabular-nums; }
  tr.chosen { background: #fef3c7; }
  footer { color: #6b7280; font-size: 0.8rem; margin-top: 1rem; }
</style>
</head>
<body>
<h1>Regularization path</h1>
$choice
$notes
<div class="figures">
$figures
</div>
<div class="scroll" tabindex="0">
<table>
<thead><tr><th>strength</th><th>loss</th><th>± error</th><th>score</th><th>nonzero, %</th>
<th>norm</th><th>choice</th></tr></thead>
<tbody>
$rows
</tbody>
</table>
</div>
<footer>penalize $version</footer>
</body>
</html>
""")
