"""Timing side by side: every comparison is made in turns within one process."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Work:
    """Something to be timed, and what has to be done before it each time."""

    timed: Callable[[], object]
    before: Callable[[], object] = lambda: None


def interleaved(works: Mapping[str, Work], turns: int) -> dict[str, list[float]]:
    """Seconds of each in each turn; the order changes from turn to turn. A first turn warms up."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(turns + 1):
        order = list(works) if turn % 2 else list(reversed(works))
        for name in order:
            works[name].before()
            start = time.perf_counter()
            works[name].timed()
            if turn:
                taken[name].append(time.perf_counter() - start)
    return taken


def ratios(seconds: Sequence[float], floor: Sequence[float]) -> list[float]:
    """Each turn against the floor of the same turn."""
    return [a / b for a, b in zip(seconds, floor, strict=True)]


def shown(values: Sequence[float], digits: int = 2) -> str:
    """The median in bold, and the quartiles."""
    low, median, high = statistics.quantiles(values, n=4)
    return f"**{median:.{digits}f}** ({low:.{digits}f} to {high:.{digits}f})"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table; the first column is text."""
    ruler = ["---", *["---:"] * (len(header) - 1)]
    return [f"| {' | '.join(row)} |" for row in (header, ruler, *rows)]


def processor() -> str:
    """The model of the processor, as the system names it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine() -> str:
    """What it ran on."""
    return f"Python {platform.python_version()}, {processor()}, {os.cpu_count()} cores"


def write(name: str, lines: Sequence[str]) -> None:
    """Print a page, and write it beside the others."""
    text = "\n".join(lines) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / name).write_text(text, "utf-8")
    print(text, end="")
