"""The results as a table for the terminal, as GitHub Markdown, and as data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.table import Table

from penalize import __version__
from penalize.demo.measure import DemoRow
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


def _cells(row: DemoRow) -> tuple[str, ...]:
    return (
        row.model,
        percent(100 * row.accuracy),
        f"{row.data_loss:.4f}",
        f"{row.penalty:.4f}" if row.rules else _NOTHING,
        percent(row.zeros_percent),
        str(row.pixels),
        str(row.units),
    )


def percent(value: float) -> str:
    """A percentage in tenths; ``0%`` is said only of nothing, and ``100%`` only of everything."""
    if value in (0, 100):
        return f"{value:.0f}%"
    return f"{min(max(value, 0.1), 99.9):.1f}%"


def table(rows: Sequence[DemoRow]) -> Table:
    """The table for the terminal."""
    made = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for number, name in enumerate(_HEADER):
        # One word a line, so that 80 columns hold the table.
        made.add_column(name.replace(" ", "\n"), justify="right" if number else "left")
    for row in rows:
        made.add_row(*_cells(row))
    return made


def markdown(rows: Sequence[DemoRow]) -> str:
    """The table for GitHub, with room for how each penalty was declared."""
    header = (_HEADER[0], "mode", "λ", *_HEADER[1:])
    lines = [header, ("---", "---", "---", *["---:"] * (len(_HEADER) - 1))]
    for row in rows:
        name, *figures = _cells(row)
        lines.append((name, row.mode or _NOTHING, row.strengths or _NOTHING, *figures))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def data(
    rows: Sequence[DemoRow], runs: Sequence[Trained], *, epochs: int, seed: int
) -> dict[str, Any]:
    """The same numbers unrounded, the settings, and the curves."""
    return {
        "penalize": __version__,
        "settings": {
            "epochs": epochs,
            "seed": seed,
            "optimizer": "SGD",
            "learning_rate": LEARNING_RATE,
            "momentum": MOMENTUM,
            "batch_size": BATCH_SIZE,
        },
        "models": [
            {**asdict(row), "zeros_percent": row.zeros_percent, "curves": asdict(run.curves)}
            for row, run in zip(rows, runs, strict=True)
        ],
    }


def as_json(content: dict[str, Any]) -> str:
    """The text of a JSON file, indented; the curves make up most of it."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
