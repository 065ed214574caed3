"""How far the routes are apart, and the part of docs/agreement.md about it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from agreement.problem import START, Run, Weights
from agreement.routes import REFERENCE, Route

FLOOR = 1e-12
"""Rounding is below; how far depends on the machine."""


class Apart(NamedTuple):
    """The largest differences between two runs."""

    penalty: float
    gradient: float
    weights: float
    """After any of the steps."""


def apart(run: Run, reference: Run) -> Apart:
    """How far a run is from another."""
    assert len(run.steps) == len(reference.steps)
    pairs = zip(run.steps, reference.steps, strict=True)
    return Apart(
        abs(run.penalty - reference.penalty),
        _largest(run.gradients, reference.gradients),
        max(_largest(w, of_reference) for w, of_reference in pairs),
    )


def _largest(first: Weights, second: Weights) -> float:
    """NaN if there is one."""
    return float(np.max([np.max(np.abs(first[name] - second[name])) for name in START]))


def table(runs: Mapping[Route, Run]) -> str:
    """One row per route. Differences are bounds, so that every machine writes the same table."""
    lines = [
        "| framework | how it is applied | penalty | gradient apart | ten steps apart |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for route, run in runs.items():
        found = apart(run, runs[REFERENCE])
        bounds = [f"< {bound(d):.0e}" for d in (found.gradient, found.weights)]
        cells = ["–", "–"] if route == REFERENCE else bounds
        lines.append(_row(route.framework, route.applied, f"{run.penalty:.9f}", *cells))
    return "\n".join(lines)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def bound(difference: float) -> float:
    """The next power of ten above, at least FLOOR."""
    if difference < FLOOR:
        return FLOOR
    return 10.0 ** (math.floor(math.log10(difference)) + 1) if difference < math.inf else difference


def section(runs: Mapping[Route, Run]) -> str:
    """What stands between the marks of docs/agreement.md: the rules as they are, and the table."""
    source = (Path(__file__).parent / "rules.py").read_text(encoding="utf-8")
    _, _, code = source.partition('"""\n\n')
    return f"```python\n{code}```\n\n{table(runs)}"
