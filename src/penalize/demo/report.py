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
        median, least, most = map(text, spread(runs, of))
        told = f" ({least.removesuffix('%')}–{most.removesuffix('%')})" if least != most else ""
        cells.append(median + told * with_spread)
    return tuple(cells)


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


def data(
    rows: Rows, runs: Sequence[Sequence[Trained]], *, epochs: int, seeds: Sequence[int]
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
    }


def as_json(content: dict[str, Any]) -> str:
    """The text of a JSON file, indented; the curves make up most of it."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
