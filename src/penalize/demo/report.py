"""The results as a table for the terminal, as GitHub Markdown, and as data."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from rich import box
from rich.table import Table

from penalize import __version__
from penalize.demo.measure import DemoRow, spread
from penalize.demo.smaller import SmallerRow
from penalize.demo.training import BATCH_SIZE, LEARNING_RATE, MOMENTUM, Trained

_HEADER = (
    "model",
    "test accuracy",
    "data loss",
    "penalty",
    "exact zeros",
    "pixels left",
    "hidden units left",
)

_NOTHING = "–"


Rows = Sequence[Sequence[DemoRow]]
"""The runs of each contender."""


class _Figure(NamedTuple):
    of: Callable[[DemoRow], float]
    text: Callable[[float], str]


def _figures(with_penalty: bool) -> tuple[_Figure, ...]:
    """What the columns of the header say, from the second on."""
    return (
        _Figure(lambda row: 100 * row.accuracy, percent),
        _Figure(lambda row: row.data_loss, "{:.4f}".format),
        _Figure(lambda row: row.penalty, "{:.4f}".format if with_penalty else lambda _: _NOTHING),
        _Figure(lambda row: row.zeros_percent, percent),
        _Figure(lambda row: row.pixels, "{:.0f}".format),
        _Figure(lambda row: row.units, "{:.0f}".format),
    )


def _cells(runs: Sequence[DemoRow], *, with_spread: bool) -> tuple[str, ...]:
    """A contender's row: the medians of its runs, and in brackets the least and the most."""
    cells = [runs[0].model]
    for of, text in _figures(bool(runs[0].rules)):
        found = [text(value) for value in spread(runs, of)]
        cells.append(_with_spread(*found) if with_spread else found[0])
    return tuple(cells)


def _with_spread(median: str, least: str, most: str) -> str:
    """The median, and in brackets the least and the most, where they differ."""
    if least == most:
        return median
    return f"{median} ({least.removesuffix('%')}–{most.removesuffix('%')})"


def percent(value: float) -> str:
    """A percentage in tenths; ``0%`` is said only of nothing, and ``100%`` only of everything."""
    if value in (0, 100):
        return f"{value:.0f}%"
    return f"{min(max(value, 0.1), 99.9):.1f}%"


def table(rows: Rows) -> Table:
    """For the terminal: medians alone, which 80 columns hold."""
    count = len(rows[0])
    caption = f"medians of {count} seeds; digits.md has their spread" if count > 1 else None
    made = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, caption=caption)
    for number, name in enumerate(_HEADER):
        # One word a line, so that 80 columns hold the table.
        made.add_column(name.replace(" ", "\n"), justify="right" if number else "left")
    for row in rows:
        made.add_row(*_cells(row, with_spread=False))
    return made


def markdown(rows: Rows) -> str:
    """For GitHub, with room for how each penalty was declared and how far the runs are apart."""
    header = (_HEADER[0], "mode", "λ", *_HEADER[1:])
    lines = [header, ("---", "---", "---", *["---:"] * (len(_HEADER) - 1))]
    for runs in rows:
        name, *figures = _cells(runs, with_spread=True)
        lines.append((name, runs[0].mode or _NOTHING, runs[0].strengths or _NOTHING, *figures))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def sentence(name: str, runs: Sequence[SmallerRow], images: int) -> str:
    """What a contender's networks are when they are compacted."""

    def told(of: Callable[[SmallerRow], float], text: Callable[[float], str]) -> str:
        return _with_spread(*map(text, spread(runs, of)))

    changed = max(run.changed for run in runs)
    same = "the same digits" if not changed else f"up to {changed} other digits"
    return (
        f"Compacted, the network of the {name} has {told(lambda run: run.units, '{:.0f}'.format)} "
        f"of {runs[0].units_in_all} hidden units and "
        f"{told(lambda run: run.parameters, '{:,.0f}'.format)} of {runs[0].parameters_in_all:,} "
        f"parameters, takes {told(lambda run: run.time, '{:.2f}'.format)} of the time for a batch "
        f"of {images} images, and predicts {same}."
    )


def data(
    rows: Rows,
    runs: Sequence[Sequence[Trained]],
    compacted: Sequence[SmallerRow],
    *,
    epochs: int,
    seeds: Sequence[int],
) -> dict[str, Any]:
    """The numbers of each run unrounded, the settings, and the curves."""
    return {
        "penalize": __version__,
        "settings": {
            "epochs": epochs,
            "seeds": list(seeds),
            "optimizer": "SGD",
            "learning_rate": LEARNING_RATE,
            "momentum": MOMENTUM,
            "batch_size": BATCH_SIZE,
        },
        "models": [
            {
                "model": rows_of[0].model,
                "runs": [
                    {
                        "seed": seed,
                        **asdict(row),
                        "zeros_percent": row.zeros_percent,
                        "curves": asdict(run.curves),
                    }
                    for seed, row, run in zip(seeds, rows_of, runs_of, strict=True)
                ],
            }
            for rows_of, runs_of in zip(rows, runs, strict=True)
        ],
        "compacted": {"model": rows[-1][0].model, "runs": [asdict(row) for row in compacted]},
    }


def as_json(content: dict[str, Any]) -> str:
    """The text of a JSON file, indented; the curves make up most of it."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
