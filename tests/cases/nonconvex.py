"""Penalties that are concave in |w|, and ratios of norms."""

from __future__ import annotations

import numpy as np

from cases.case import Case, l1, l2
from penalize import L0, L1, L2, MCP, SCAD, Hoyer, LogSum


def mcp(w: np.ndarray, strength: float, gamma: float) -> float:
    t = np.abs(w)
    inside = strength * t - t**2 / (2 * gamma)
    return float(np.where(t <= gamma * strength, inside, gamma * strength**2 / 2).sum())


def scad(w: np.ndarray, strength: float, gamma: float) -> float:
    t = np.abs(w)
    middle = (2 * gamma * strength * t - t**2 - strength**2) / (2 * (gamma - 1))
    outer = np.where(t <= gamma * strength, middle, strength**2 * (gamma + 1) / 2)
    return float(np.where(t <= strength, strength * t, outer).sum())


CASES = [
    Case(L0(0.3), lambda w: 0.3 * float(np.count_nonzero(w)), convex=False),
    Case(MCP(0.5), lambda w: mcp(w, 0.5, 3.0), convex=False),
    Case(MCP(0.2, gamma=1.5), lambda w: mcp(w, 0.2, 1.5), convex=False),
    Case(MCP(0.2, 1.5, factor=2.0), lambda w: 2 * mcp(w, 0.2, 1.5), convex=False),
    Case(SCAD(0.4), lambda w: scad(w, 0.4, 3.7), convex=False),
    Case(SCAD(0.2, gamma=2.1), lambda w: scad(w, 0.2, 2.1), convex=False),
    Case(LogSum(0.02), lambda w: 0.02 * float(np.log1p(np.abs(w) / 0.1).sum()), convex=False),
    Case(LogSum(0.5, epsilon=0.5), lambda w: 0.5 * float(np.log1p(2 * abs(w)).sum()), convex=False),
    Case(2 * MCP(0.5) + L2(0.1), lambda w: 2 * mcp(w, 0.5, 3.0) + 0.1 * l2(w), convex=False),
    Case(
        MCP(0.5) + L1(0.1),
        lambda w: mcp(w, 0.5, 3.0) + 0.1 * l1(w),
        convex=False,
        has_prox=False,
    ),
    Case(
        Hoyer(0.3),
        lambda w: 0.3 * l1(w) ** 2 / l2(w) if w.any() else 0.0,
        convex=False,
        has_prox=False,
    ),
    Case(
        Hoyer(0.3, squared=False),
        lambda w: 0.3 * l1(w) / np.sqrt(l2(w)) if w.any() else 0.0,
        convex=False,
        has_prox=False,
    ),
]
