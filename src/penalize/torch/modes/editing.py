"""Whether weights may be set beside an optimizer, whatever step it takes."""

from __future__ import annotations

from torch.optim import LBFGS, Optimizer

from penalize.torch.clock import stepped_by


def why_not_edited(optimizer: Optimizer) -> str:
    """Why what is set after a step does not stay, as a clause; empty where it does."""
    if isinstance(stepped_by(optimizer), LBFGS):
        return "its line search and its curvature are of the weights that it left itself"
    if callable(getattr(optimizer, "eval", None)):
        return "it evaluates other weights than those that it trains"
    return ""
