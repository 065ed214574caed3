"""Verdicts: what a mode does under an optimizer, against its reference."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.optim import Optimizer

from optimizers.references import (
    attached,
    decoupled_by_hand,
    halfspace_by_hand,
    proximal,
    proximal_by_hand,
    with_loss_term,
)
from optimizers.refusals import reason_of
from optimizers.rows import Row
from penalize import PenalizeError, Regularizer

Reference = Callable[[Row, Regularizer], list[Tensor]]

MODES: dict[str, tuple[Reference, Reference]] = {
    "gradient": (functools.partial(attached, mode="gradient"), with_loss_term),
    "decoupled": (functools.partial(attached, mode="decoupled"), decoupled_by_hand),
    "proximal": (proximal, proximal_by_hand),
    "halfspace": (functools.partial(attached, mode="halfspace"), halfspace_by_hand),
}
"""What each mode does, and what it should do."""


@functools.cache
def verdict(row: Row, regularizer: Regularizer, mode: str) -> str:
    """``"exact"`` to the last bit, a bound on the difference, or ``"refused: …"``."""
    act, reference = MODES[mode]
    try:
        found = torch.stack(act(row, regularizer))
    except PenalizeError as error:
        return f"refused: {reason_of(error)}"
    wanted = torch.stack(reference(row, regularizer))
    if mode == "decoupled" and torch.equal(found, wanted):
        return (
            "exact"  # elsewhere the reference computes in another order: equal bits would be luck
        )
    difference = float((found - wanted).abs().max() / wanted.abs().max())
    # How far it is below the bound depends on the machine.
    return f"< {row.bound:.0e}" if difference < row.bound else f"off by {difference:.1e}"


@contextmanager
def implementations_run(cls: type[Optimizer]) -> Iterator[set[str]]:
    """Which of its implementations PyTorch really runs meanwhile."""
    ran: set[str] = set()

    def recorded(function: Any, name: str) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            ran.add(name)
            return function(*args, **kwargs)

        return wrapper

    module = sys.modules[inspect.unwrap(cls.step).__globals__["__name__"]]
    places = [(module, "_single_tensor_", "single-tensor"), (module, "_multi_tensor_", "foreach")]
    with ExitStack() as stack:
        for owner, prefix, name in [*places, (torch, "_fused_", "fused")]:
            for function in [f for f in vars(owner) if f.startswith(prefix)]:
                wrapper = recorded(getattr(owner, function), name)
                stack.enter_context(patch.object(owner, function, wrapper))
        yield ran
