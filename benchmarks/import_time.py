"""How long ``import penalize`` takes beyond Python's own start, and the wing beyond its framework.

Each run is a new process that times the statement itself. Modules are read from bytecode, as after
any ``pip install``. Prints a table and writes it beside this file.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

# Without bytecode every run would measure the compiler.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}

RESULTS = Path(__file__).parent / "results" / "import_time.md"


class Comparison(NamedTuple):
    """Two statements: the second is timed after the first has run."""

    after: str
    measured: str
    runs: int
    target: str


STDLIB = "import dataclasses, difflib, enum, numbers, typing"

COMPARISONS = [
    Comparison("pass", "import penalize", runs=30, target="50"),
    # Names are loaded when they are first used; this is what users pay then.
    Comparison("pass", "from penalize import L1, kernels", runs=30, target="–"),
    Comparison("pass", STDLIB, runs=30, target="–"),
    Comparison(STDLIB, "from penalize import L1, kernels", runs=30, target="50"),
    Comparison("import torch", "import penalize.torch", runs=7, target="–"),
    Comparison("import keras", "import penalize.keras", runs=7, target="–"),
    Comparison("import tensorflow", "import penalize.tensorflow", runs=7, target="–"),
]


def milliseconds(comparison: Comparison) -> float:
    """What the measured statement takes in a new Python, once the other has run."""
    program = (
        f"import time\n{comparison.after}\nstart = time.perf_counter()\n{comparison.measured}\n"
        "print(1e3 * (time.perf_counter() - start))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=True, env=ENVIRONMENT, capture_output=True, text=True)
    return float(done.stdout)


def row(comparison: Comparison) -> str:
    """One line of the table."""
    milliseconds(comparison)  # writes the bytecode
    times = [milliseconds(comparison) for _ in range(comparison.runs)]
    low, median, high = statistics.quantiles(times, n=4)
    cells = [
        f"`{comparison.after}`",
        f"`{comparison.measured}`",
        str(comparison.runs),
        f"**{median:.1f}** ({low:.1f} to {high:.1f})",
        comparison.target,
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
        "What a statement takes in a new Python, from bytecode, after another has run: the median",
        "and the quartiles of several runs. Written by `make bench`.",
        "",
        "| after | statement | runs | ms | target |",
        "| --- | --- | ---: | ---: | ---: |",
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
