"""Whether what is done to the weights beside an optimizer stays: known, or seen in a trial."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from penalize.torch.clock import stepped_by
from penalize.torch.modes.copies import keeps_copies
from penalize.torch.modes.recipes import NotTriedError, Recipe
from penalize.torch.modes.trials import STEPS, Look, run

_EDITED_BEFORE = (1, 8)
"""The steps before which weights are edited. The first alone would pass what only begins there to
set itself up, and one alone what puts its own weights in place every fifth or sixth step. A longer
trial has a third, in its middle."""

_LONGEST = 500
"""The most steps after which an optimizer is waited for to put weights of its own in place."""

_SOON = 5
"""What a setting above that is tried at: if it is a period, a short trial is then enough for it."""

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
    """The largest part of an edit that was missing afterwards; in a longer trial, after a step."""

    moved: float = 1.0
    """How far weights went in a step, as a part of the learning rate."""

    steps: int = STEPS
    """How many there were."""

    reason: str | None = None

    beside: str = ""
    """What was set otherwise than in the optimizer in use."""


_tried: dict[tuple[object, ...], Tried] = {}


def why_not_edited(optimizer: Optimizer, *, in_closure: bool = False) -> str | None:
    """Why weights that are changed beside an optimizer would not stay so; None if they do.

    PyTorch's own step from wherever the weights are. Of any other a new one is tried, once for its
    class and settings; see :mod:`penalize.torch.modes.trials`.

    Args:
        optimizer: the one in use.
        in_closure: whether they are changed when its closure has been evaluated, not before a step.
    """
    tried = _trial_of(optimizer, in_closure)
    if tried.reason is not None or tried.lost <= _KEPT:
        return tried.reason
    return (
        f"it may keep weights of its own: in a trial of {tried.steps} steps with a new one, "
        f"{tried.beside}"
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


def _trial_of(optimizer: Optimizer, in_closure: bool = False) -> Tried:
    inner = stepped_by(optimizer)
    if is_of_pytorch(inner):
        return Tried()
    try:
        recipe = Recipe(inner)
        key = (*recipe.key(_CHANGE), in_closure)
        if key not in _tried:
            _tried[key] = _trial(recipe, in_closure)
        return _tried[key]
    except NotTriedError as error:
        return Tried(reason=str(error))


def is_of_pytorch(optimizer: Optimizer) -> bool:
    """Whether its step is one of torch.optim's: a subclass that has none of its own steps alike."""
    step = inspect.unwrap(type(optimizer).step)
    return f"{step.__module__}.".startswith("torch.optim.")


def _trial(recipe: Recipe, in_closure: bool) -> Tried:
    """A short trial; others where that may not have waited long enough."""
    has_copies: list[bool] = []
    edited = partial(_edited, recipe, in_closure)
    tried = edited(STEPS, lambda *made: has_copies.append(keeps_copies(*made)))
    for name, number in recipe.whole_settings().items():
        if tried.lost <= _KEPT and number > _LONGEST:
            tried = _sooner(recipe, in_closure, name, number)._replace(moved=tried.moved)
    steps = STEPS + 2 * (_LONGEST if any(has_copies) else _longest_period(recipe))
    if tried.lost <= _KEPT and steps > STEPS:
        tried = edited(steps)._replace(moved=tried.moved)
    return tried


def _sooner(recipe: Recipe, in_closure: bool, name: str, number: int) -> Tried:
    """What is undone where a setting that may be a long period is a short one.

    Nothing, if it cannot be had at that or fails there: then it is no period.
    """
    try:
        tried = _edited(recipe, in_closure, STEPS, change={name: _SOON})
    except NotTriedError:
        return Tried()
    beside = f"with {name}={_SOON} in place of {number}, "
    return tried._replace(beside=beside) if math.isfinite(tried.lost) else Tried()


def _longest_period(recipe: Recipe) -> int:
    """The largest of its settings that may be a period which a short trial is not enough for.

    Some begin to keep weights only when they first put them in place, as timm's Lookahead. So an
    edit has to come after that, and before the second time.
    """
    numbers = (n for n in recipe.whole_numbers() if _EDITED_BEFORE[-1] <= n <= _LONGEST)
    return max(numbers, default=0)


def _edited(
    recipe: Recipe,
    in_closure: bool,
    steps: int,
    look: Look | None = None,
    change: Mapping[str, Any] = MappingProxyType({}),
) -> Tried:
    times = _EDITED_BEFORE if steps == STEPS else (*_EDITED_BEFORE, steps // 2)
    edits: list[list[Tensor]] = [[] for _ in times]  # of each of the weights, at each time

    def edit(step: int, w: Tensor) -> None:
        if step in times:
            number, before = times.index(step), w.clone()
            # All shrink, as by an L2, and some become 0: what only keeps a norm is found out too.
            pattern = torch.arange(w.numel(), device=w.device).reshape(w.shape)
            w *= torch.where(pattern % (len(times) + 1) == number, 0.0, 0.5)
            edits[number].append((w - before).reshape(-1).to("cpu", torch.float64))

    again = partial(run, recipe, {**_CHANGE, **change}, steps=steps, in_closure=in_closure)
    plain, edited = again(look=look), again(edit)
    if not all(edits):
        raise NotTriedError("it did not call its closure in each step")
    lost, stays = 0.0, torch.zeros_like(plain[0])
    before = stays
    for step in range(1, steps + 1):
        if step in times:
            last = torch.cat(edits[times.index(step)])
            stays = stays + last
        missing = edited[step] - plain[step] - stays
        # Over many steps even what is next to nothing adds up. Here weights are put in place.
        part = float((missing if steps == STEPS else missing - before).norm() / last.norm())
        lost = max(lost, math.inf if math.isnan(part) else part)
        before = missing
    moved = float((plain[-1] - plain[0]).abs().mean()) / (steps * _RATE)
    return Tried(lost, moved, steps)
