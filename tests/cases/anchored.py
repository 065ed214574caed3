"""Penalties on the distance from a reference, and functions of a user's own."""

from __future__ import annotations

from typing import Any

import numpy as np

from cases.case import ROWS, Case, grouped, l1, l2
from penalize import EWC, L1, L2, Custom, GroupLasso, toward
from penalize.backends import open_array

ANCHOR = np.random.default_rng(7).normal(size=(3, 4))
FISHER = np.random.default_rng(8).uniform(0, 2, size=(3, 4))


def ridge(w: Any) -> Any:
    return open_array(w)[1].sum(w * w)


CASES = [
    Case(
        toward(ANCHOR, L2(0.3)),
        lambda w: 0.3 * l2(w - ANCHOR),
        kinks_at_zero=False,
        typed=False,
    ),
    Case(
        toward(ANCHOR, L1(0.1) + GroupLasso(0.2, groups=0)),
        lambda w: 0.1 * l1(w - ANCHOR) + 0.2 * grouped(*ROWS)(w - ANCHOR),
        kinks_at_zero=False,
        typed=False,
    ),
    Case(
        EWC(FISHER, ANCHOR, 0.7),
        lambda w: 0.7 * float((FISHER * (w - ANCHOR) ** 2).sum()),
        kinks_at_zero=False,
        typed=False,
    ),
    Case(
        EWC(FISHER, ANCHOR) + L2(0.1),
        lambda w: float((FISHER * (w - ANCHOR) ** 2).sum()) + 0.1 * l2(w),
        kinks_at_zero=False,
        typed=False,
    ),
    Case(
        Custom(ridge, 0.5, gradient=lambda w: 2 * w, prox=lambda w, step: w / (1 + 2 * step)),
        lambda w: 0.5 * l2(w),
        curved_at_zero=True,
        prox_per_element=False,
        typed=False,
        saved=False,
    ),
]
