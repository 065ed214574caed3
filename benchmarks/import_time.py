"""How long ``import penalize`` takes beyond Python's own start, and the wing beyond its framework.

Each run is a new process that times the statement itself. Modules are read from bytecode, as after
any ``pip install``. Prints a table and writes it beside this file.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import NamedTuple

from timing import machine, shown, table, write

# Without bytecode every run would measure the compiler.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


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
    Comparison("import torch", "import penalize.torch", runs=7, target="30"),
    Comparison("import gc, torch; gc.disable()", "import penalize.torch", runs=7, target="30"),
    Comparison("import keras", "import penalize.keras", runs=7, target="30"),
    Comparison("import tensorflow", "import penalize.tensorflow", runs=7, target="30"),
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


def row(comparison: Comparison) -> list[str]:
    """One line of the table."""
    milliseconds(comparison)  # writes the bytecode
    times = [milliseconds(comparison) for _ in range(comparison.runs)]
    return [
        f"`{comparison.after}`",
        f"`{comparison.measured}`",
        str(comparison.runs),
        shown(times, 1),
        comparison.target,
    ]


def main() -> None:
    header = ["after", "statement", "runs", "ms", "target"]
    write(
        "import_time.md",
        [
            "# Import time",
            "",
            "What a statement takes in a new Python, from bytecode, after another has run: the",
            "median and the quartiles of several runs. Written by `make bench`.",
            "",
            *table(header, [row(comparison) for comparison in COMPARISONS]),
            "",
            "A wing loads the core, too; what acts in steps is loaded when a plan is attached.",
            "",
            f"{machine()}.",
        ],
    )


if __name__ == "__main__":
    main()
