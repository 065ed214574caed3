"""Whether what is done to the weights beside an optimizer stays: known, or seen in a trial."""

from __future__ import annotations

import inspect
import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from penalize.torch.clock import stepped_by
from penalize.torch.modes.trials import STEPS, NotTriedError, Recipe, run

_EDITED_BEFORE = (1, 8)
"""The steps before which weights are edited. The first alone would pass what only begins there to
set itself up, and one alone what puts its own weights in place every fifth or sixth step."""

_RATE = 1e-4
"""The learning rate of a trial: so small that what an update owes to the size of the weights is
next to nothing. What an optimizer keeps of them does not depend on it."""

_CHANGE = {"lr": _RATE, "weight_decay": 0.0}
"""The settings in which a trial differs from the optimizer."""

_KEPT = 2e-2
"""The part of an edit that may be lost."""

_SIZED = 1e-4
"""The part of the learning rate by which weights move at least, under gradients of size 1."""


class Tried(NamedTuple):
    """What a trial showed; the reason where there was none."""

    lost: float = 0.0
    """The largest part of an edit that was missing afterwards."""

    moved: float = 1.0
    """How far weights went in a step, as a part of the learning rate."""

    reason: str | None = None


_tried: dict[tuple[object, ...], Tried] = {}


def why_not_edited(optimizer: Optimizer) -> str | None:
    """Why weights that are changed beside an optimizer would not stay so; None if they do.

    PyTorch's own step from wherever the weights are. Of any other a new one is tried, once for its
    class and settings; see :mod:`penalize.torch.modes.trials`.
    """
    tried = _trial_of(optimizer)
    if tried.reason is not None or tried.lost <= _KEPT:
        return tried.reason
    return (
        f"it may keep weights of its own: in a trial of {STEPS} steps with a new one, "
        f"{min(tried.lost, 1):.0%} of what was done to the weights was undone"
    )


def why_not_sized(optimizer: Optimizer) -> str | None:
    """Why a learning rate does not say how large the steps of an optimizer are; None if it does."""
    tried = _trial_of(optimizer)
    if tried.reason is not None or tried.moved >= _SIZED:
        return tried.reason
    return (
        f"in a trial with gradients of size 1 its steps were less than {_SIZED:.4f} of its lr, "
        "which does not say how large they are"
    )


def _trial_of(optimizer: Optimizer) -> Tried:
    inner = stepped_by(optimizer)
    if _is_of_pytorch(inner):
        return Tried()
    try:
        recipe = Recipe(inner)
        key = recipe.key(_CHANGE)
        if key not in _tried:
            _tried[key] = _trial(recipe)
        return _tried[key]
    except NotTriedError as error:
        return Tried(reason=str(error))


def _is_of_pytorch(optimizer: Optimizer) -> bool:
    """Whether its step is one of torch.optim's: a subclass that has none of its own steps alike."""
    step = inspect.unwrap(type(optimizer).step)
    return f"{step.__module__}.".startswith("torch.optim.")


def _trial(recipe: Recipe) -> Tried:
    edits: list[Tensor] = []  # of all weights together, at each of the two steps

    def edit(step: int, w: Tensor) -> None:
        if step in _EDITED_BEFORE:
            before = w.clone()
            # All shrink, as by an L2, and some become 0: what only keeps a norm is found out too.
            pattern = torch.arange(w.numel(), device=w.device).reshape(w.shape)
            w *= torch.where(pattern % 3 == _EDITED_BEFORE.index(step), 0.0, 0.5)
            edits.append((w - before).reshape(-1).to("cpu", torch.float64))

    plain, edited = run(recipe, _CHANGE), run(recipe, _CHANGE, edit)
    half = len(edits) // 2
    first, second = torch.cat(edits[:half]), torch.cat(edits[half:])
    lost = 0.0
    for step in range(1, STEPS + 1):
        last, stays = (first, first) if step < _EDITED_BEFORE[1] else (second, first + second)
        missing = float((edited[step] - plain[step] - stays).norm() / last.norm())
        lost = max(lost, 1.0 if math.isnan(missing) else missing)
    moved = float((plain[-1] - plain[0]).abs().mean()) / (STEPS * _RATE)
    return Tried(lost, moved)
