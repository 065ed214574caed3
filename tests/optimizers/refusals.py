"""What is refused, with which error, and what it says in the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch.optim import (
    LBFGS,
    SGD,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
)

from optimizers.rows import Row
from penalize import (
    L2,
    AppliedTwiceError,
    ModeError,
    NoKinkError,
    OptimizerError,
    Regularizer,
)

STEP_IS_KNOWN = (SGD, Adam, AdamW, NAdam, RAdam, Adamax, Adagrad, RMSprop)


def _grows_without_end(row: Row) -> bool:
    return bool(row.kwargs.get("centered")) or row.kwargs.get("momentum") == 1


def _has_no_rate(row: Row) -> bool:
    """Transformers' Adafactor chooses its own, unless it is given one."""
    return row.origin is LBFGS or (row.origin is Optimizer and not row.kwargs)


class Refusal(NamedTuple):
    """One reason, the error it is raised as, and where it is expected."""

    reason: str
    error: type[Exception]
    sentence: str
    expected: Callable[[Row, Regularizer, str], bool]


REFUSALS = (
    Refusal(
        "differentiable=True",
        OptimizerError,
        "has differentiable=True",
        lambda row, r, mode: row.implementation == "differentiable",
    ),
    Refusal(
        "the optimizer decays already",
        AppliedTwiceError,
        "and by weight_decay=",
        lambda row, r, mode: row.decays and isinstance(r, L2),
    ),
    Refusal(
        "no learning rate",
        ModeError,
        "needs a learning rate that scales the update",
        lambda row, r, mode: mode == "decoupled" and _has_no_rate(row),
    ),
    Refusal(
        "may keep weights of its own",
        ModeError,
        "may keep weights of its own",
        lambda row, r, mode: (
            mode in ("decoupled", "halfspace")
            and row.origin is Optimizer
            and (row.optimizer.startswith("schedulefree") or _has_no_rate(row))
        ),
    ),
    Refusal(
        "searches along a line",
        ModeError,
        "its line search and its curvature",
        lambda row, r, mode: mode == "halfspace" and row.origin is LBFGS,
    ),
    Refusal(
        "makes no zeros",
        NoKinkError,
        "it has no kink at 0",
        lambda row, r, mode: mode == "halfspace" and isinstance(r, L2),
    ),
    Refusal(
        "sparse gradient",
        ModeError,
        "has a sparse gradient",
        lambda row, r, mode: mode in ("gradient", "halfspace") and row.sparse,
    ),
    Refusal(
        "its step is not known",
        ModeError,
        "is not known",
        lambda row, r, mode: mode == "proximal" and row.origin not in STEP_IS_KNOWN,
    ),
    Refusal(
        "its step has no bound",
        ModeError,
        "needs a step that stays bounded",
        lambda row, r, mode: mode == "proximal" and _grows_without_end(row),
    ),
)
"""In the order in which they are checked: the first that is expected is the one that is raised."""


def expected(row: Row, regularizer: Regularizer, mode: str) -> str | None:
    """The reason for which this is refused, by category; None where it acts."""
    reasons = (r.reason for r in REFUSALS if r.expected(row, regularizer, mode))
    return next(reasons, None)


def reason_of(error: Exception) -> str:
    """The reason that an error gives."""
    (found,) = [
        refusal.reason
        for refusal in REFUSALS
        if type(error) is refusal.error and refusal.sentence in str(error)
    ]
    return found
