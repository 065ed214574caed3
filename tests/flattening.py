"""Problems with penalties that flatten out, whose solutions are known: for the wings to solve.

Each is ½‖w − target‖² + Ω(w), and starts near the target, as from a fit without the penalty. A
strength λ and a target t are λ/c and t/c in other units, so each problem has five strengths in it:
as five times its targets. What GroupMCP does to the norm of a group, MCP does to a number.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from penalize import MCP, SCAD, GroupMCP, LogSum, Regularizer

_LEVELS = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
_AT_HALF = np.array([1.46, 0.8, 0.02, 2.0, 3.0, 0.25])
TARGETS = np.outer(0.3 / _LEVELS, _AT_HALF).reshape(-1)
"""The last but one row has 0.876, where MCP(0.3) is nearly flat at the solution."""

DIRECTION = np.array([0.6, 0.8])
STEPS = 250

PROBLEMS: Mapping[str, Regularizer] = {
    "MCP": MCP(0.3),
    "SCAD": SCAD(0.3),
    "LogSum": LogSum(0.06, 0.2),
    "GroupMCP": GroupMCP(0.3, groups=0, size_weighted=False),
}


def target(name: str) -> np.ndarray:
    """What the weight of a problem is drawn to: a row for each number, or group."""
    return TARGETS[:, None] * (DIRECTION if name == "GroupMCP" else np.ones(1))


def start(name: str) -> np.ndarray:
    """Where it starts."""
    return 1.05 * target(name)


def left(name: str, w: np.ndarray) -> np.ndarray:
    """How far from 0 the nearest subgradient of the objective is, for each row."""
    g = w - target(name)
    at = np.where(w == 0, 1e-12 * target(name), w)  # the kink is as large as the slope beside it
    pull = PROBLEMS[name].gradient(at)
    kept = np.linalg.norm(g, axis=1) - np.linalg.norm(pull, axis=1)
    return np.where((w == 0).all(axis=1), np.maximum(kept, 0), np.linalg.norm(g + pull, axis=1))


def minimum(name: str) -> np.ndarray:
    """The solutions by brute force; NaN where another minimum is nearly as low."""
    r = MCP(0.3) if name == "GroupMCP" else PROBLEMS[name]
    grid = np.linspace(0, 10, 10_001)
    heights = np.array([float(r(np.array([x]))) for x in grid])
    found = []
    for t in TARGETS:
        objective = 0.5 * (grid - t) ** 2 + heights
        best = int(np.argmin(objective))
        sides = np.r_[np.inf, objective, np.inf]
        is_low = (objective <= sides[:-2]) & (objective <= sides[2:])
        is_low &= np.abs(grid - grid[best]) > 0.05
        is_tie = bool((objective[is_low] < objective[best] + 0.01).any())
        found.append(np.nan if is_tie else grid[best])
    return np.array(found)


def check(weights: Mapping[str, np.ndarray]) -> None:
    """Each is at a stationary point, which is the minimum found by brute force."""
    for name, w in weights.items():
        np.testing.assert_allclose(left(name, w), 0, atol=2e-3, err_msg=name)
        expected, found = minimum(name), np.linalg.norm(w, axis=1)
        clear = ~np.isnan(expected)
        assert clear.sum() > 24, name
        np.testing.assert_allclose(found[clear], expected[clear], atol=4e-3, err_msg=name)
