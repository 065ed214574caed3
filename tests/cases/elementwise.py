"""Penalties that are sums over elements, and sums of them."""

from __future__ import annotations

import numpy as np

from cases.case import Case, l1, l2
from penalize import L1, L1L2, L2, Huber


def huber(w: np.ndarray, delta: float) -> float:
    t = np.abs(w)
    return float(np.where(t <= delta, t**2 / 2, delta * (t - delta / 2)).sum())


CASES = [
    Case(Huber(0.6), lambda w: 0.6 * huber(w, 1.0), curved_at_zero=True),
    Case(Huber(0.6, delta=0.3), lambda w: 0.6 * huber(w, 0.3), curved_at_zero=True),
    Case(Huber(0.6, delta=0.3) + L2(0.2), lambda w: 0.6 * huber(w, 0.3) + 0.2 * l2(w)),
    Case(L1(0.3), lambda w: 0.3 * l1(w)),
    Case(L2(0.7), lambda w: 0.7 * l2(w)),
    Case(L2(0.0), lambda w: 0.0),
    Case(L1L2(l1=0.3, l2=0.7), lambda w: 0.3 * l1(w) + 0.7 * l2(w)),
    Case(L1L2(l2=0.7), lambda w: 0.7 * l2(w)),
    Case(L1(0.3) + L2(0.7), lambda w: 0.3 * l1(w) + 0.7 * l2(w)),
    Case(L1(0.1) + L1(0.2) + L1L2(0.1, 0.2), lambda w: 0.4 * l1(w) + 0.2 * l2(w)),
    Case(2 * (L1(0.1) + L2(0.2)), lambda w: 0.2 * l1(w) + 0.4 * l2(w)),
]
