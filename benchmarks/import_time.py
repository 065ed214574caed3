"""How long ``import penalize`` takes beyond Python's own start, and the wing beyond its framework.

Each run is a new process. The two statements of a comparison alternate, so that both meet the same
machine; the medians are compared. Modules are read from bytecode, as after any ``pip install``.
Prints a table and writes it beside this file.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

# Without bytecode every run would measure the compiler.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}

RESULTS = Path(__file__).parent / "results" / "import_time.md"


class Comparison(NamedTuple):
    """Two statements, and how much longer the second may take."""

    base: str
    measured: str
    runs: int
    target_ms: float


COMPARISONS = [
    Comparison("pass", "import penalize", runs=30, target_ms=50),
    Comparison("import torch", "import penalize.torch", runs=5, target_ms=30),
]


def seconds(statement: str) -> float:
    """Wall-clock time of a new Python that runs one statement."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True, env=ENVIRONMENT)
    return time.perf_counter() - start


def measure(comparison: Comparison) -> tuple[list[float], list[float]]:
    """Milliseconds of alternating runs, after one of each that writes the bytecode."""
    pair = (comparison.base, comparison.measured)
    for statement in pair:
        seconds(statement)
    rows = [[1e3 * seconds(statement) for statement in pair] for _ in range(comparison.runs)]
    return [row[0] for row in rows], [row[1] for row in rows]


def spread(times: list[float]) -> float:
    """Distance between the quartiles."""
    low, _, high = statistics.quantiles(times, n=4)
    return high - low


def row(comparison: Comparison) -> str:
    base, measured = measure(comparison)
    start, total = statistics.median(base), statistics.median(measured)
    cells = [
        f"`{comparison.base}`",
        f"`{comparison.measured}`",
        str(comparison.runs),
        f"{start:.1f} (±{spread(base) / 2:.1f})",
        f"{total:.1f} (±{spread(measured) / 2:.1f})",
        f"**{total - start:.1f}**",
        f"{comparison.target_ms:g}",
    ]
    return f"| {' | '.join(cells)} |"


def processor() -> str:
    """The model of the processor, as the system names it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def report() -> str:
    lines = [
        "# Import time",
        "",
        "Wall-clock milliseconds of a whole Python process, from bytecode: medians of alternating",
        "runs (± half the distance between the quartiles). Written by `make bench`.",
        "",
        "| without | with | runs of each | without, ms | with, ms | difference | target |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
        *map(row, COMPARISONS),
        "",
        f"Python {platform.python_version()}, {processor()}, {os.cpu_count()} cores.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    text = report()
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(text, "utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
