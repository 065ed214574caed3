"""Problems with penalties that flatten out, whose solutions are known: for the wings to solve.

Each is ½‖w − target‖² + Ω(w), and starts near the target, as from a fit without the penalty. What
GroupMCP does to the norm of a group MCP does to a number, so both have the same solutions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from penalize import MCP, SCAD, GroupMCP, LogSum, Regularizer

TARGETS = np.array([1.46, 0.8, 0.02, 2.0, 3.0, 0.25])
"""1.46 is where MCP(0.5) is nearly flat at the solution, 1.44: the slope there is 0.02."""

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5)
STEPS = 300

KINDS: Mapping[str, Callable[[float], Regularizer]] = {
    "MCP": MCP,
    "SCAD": SCAD,
    "LogSum": lambda level: LogSum(level / 5, 0.1),
}

# For each level and target a group of so many elements that the level is 0.1·√|g|.
SIZES = np.repeat([1, 4, 9, 16, 25], TARGETS.size)
_ENDS = np.cumsum(SIZES)
_GROUPS = [list(range(end - size, end)) for end, size in zip(_ENDS, SIZES, strict=True)]

PROBLEMS: Mapping[str, Regularizer] = {
    **{
        f"{name}_{i}": make(level) for name, make in KINDS.items() for i, level in enumerate(LEVELS)
    },
    "groups": GroupMCP(0.1, groups=_GROUPS),
}


def target(name: str) -> np.ndarray:
    """What the weight of a problem is drawn to."""
    if name != "groups":
        return TARGETS
    return np.repeat(np.tile(TARGETS, len(LEVELS)) / np.sqrt(SIZES), SIZES)


def start(name: str) -> np.ndarray:
    """Where it starts."""
    return 1.1 * target(name)


def _norms(name: str, w: np.ndarray) -> np.ndarray:
    return np.sqrt(np.add.reduceat(w * w, _ENDS - SIZES)) if name == "groups" else np.abs(w)


def left(name: str, w: np.ndarray) -> np.ndarray:
    """How far from 0 the nearest subgradient of the objective is, for each number or group."""
    g, zero = w - target(name), _norms(name, w) == 0
    at = np.where(w == 0, 1e-12 * target(name), w)  # the kink is as large as the slope beside it
    pull = PROBLEMS[name].gradient(at)
    kept = np.maximum(_norms(name, g) - _norms(name, pull), 0)
    return np.where(zero, kept, _norms(name, g + pull))


def minimum(name: str) -> np.ndarray:
    """The solutions by brute force; NaN where another minimum is nearly as low."""
    if name == "groups":
        return np.concatenate([_lowest(MCP(level)) for level in LEVELS])
    return _lowest(PROBLEMS[name])


def _lowest(r: Regularizer) -> np.ndarray:
    grid = np.linspace(0, 4, 4001)
    heights = np.array([float(r(np.array([x]))) for x in grid])
    found = []
    for t in TARGETS:
        objective = 0.5 * (grid - t) ** 2 + heights
        best = int(np.argmin(objective))
        sides = np.r_[np.inf, objective, np.inf]
        is_low = (
            (objective <= sides[:-2]) & (objective <= sides[2:]) & (abs(grid - grid[best]) > 0.05)
        )
        is_tie = (objective[is_low] < objective[best] + 0.02).any()
        found.append(np.nan if is_tie else grid[best])
    return np.array(found)


def check(weights: Mapping[str, np.ndarray]) -> None:
    """Each is at a stationary point, which is the minimum found by brute force."""
    for name, w in weights.items():
        np.testing.assert_allclose(left(name, w), 0, atol=1e-3, err_msg=name)
        expected, found = minimum(name), _norms(name, w)
        clear = ~np.isnan(expected)
        assert clear.mean() > 0.6, name
        np.testing.assert_allclose(found[clear], expected[clear], atol=2e-3, err_msg=name)
