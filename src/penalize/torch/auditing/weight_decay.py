"""The weight decay that really entered a step: measured, not read off the optimizer's name.

The step is replayed without any weight decay; with an L2 in the gradient in its place; and with the
weights shrunk before the update in its place. What the step did of itself is one of the three.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from penalize.torch.auditing.replay import Act, Replay, Seen
from penalize.torch.auditing.verdicts import Decay

_ANOTHER = "not measured: the step differs each time it runs"


class Measurement(NamedTuple):
    """The weights after a step."""

    found: Seen
    """As it is."""

    again: Seen
    """As it is, a second time."""

    without: Seen
    coupled: Seen
    decoupled: Seen

    def of(self, p: Tensor, decay: Decay) -> Decay:
        """The decay of a parameter, with the factor and kind that were measured."""
        runs = [run.moved(p) for run in self]
        if len({len(tensors) for tensors in runs}) > 1:
            return decay._replace(note=_ANOTHER)
        # In its first step Adam takes the sign of the gradient, and what a decay adds is in the
        # state alone: so it is looked for where it is largest.
        found, again, without, coupled, decoupled = max(
            zip(*runs, strict=True), key=lambda tensors: _distance(tensors[0], tensors[2])
        )
        noise, change = _distance(found, again), _distance(found, without)
        if noise > 1e-2 * change:
            return decay._replace(note=_ANOTHER)
        if not change and not bool(p.any()):
            return decay._replace(note="its weights are 0 here, so it cannot be seen")
        if not change:
            came = id(p) in self.found.gradients
            note = "never applied" if came else "never applied: no gradient came"
            return decay._replace(factor=0.0, note=note)
        for kind, expected in (("in the gradient", coupled), ("decoupled", decoupled)):
            if _distance(found, expected) <= 1e-2 * change:
                return decay._replace(factor=1.0, kind=kind)
        return decay._replace(note="enters in a way of its own")


def measure(replay: Replay, call: Callable[[], Any], found: Seen) -> Measurement | None:
    """Replay a step with other decays; None if there is none to be measured."""
    if not any(group.get("weight_decay") for group in found.groups.values()):
        return None
    # Of an optimizer that wraps another one only the inner one updates, and so decays.
    updating = set(found.optimizers.values())

    def run(vary: Act | None) -> Seen:
        return replay.run(call, lambda o: vary(o) if vary is not None and o in updating else None)

    return Measurement(found, *map(run, (None, _switch_off, _put_in_gradient, _shrink)))


def _distance(one: Tensor, other: Tensor) -> float:
    """The largest difference, next to the size."""
    if one.shape != other.shape:
        return math.inf
    if not one.numel():
        return 0.0
    return float((one - other).abs().max()) / (float(one.abs().max()) or 1.0)


# --- in place of the optimizer's own ------------------------------------------------------------


def _switch_off(optimizer: Optimizer) -> None:
    for group in optimizer.param_groups:
        if "weight_decay" in group:
            group["weight_decay"] = 0.0


def _put_in_gradient(optimizer: Optimizer) -> None:
    with torch.no_grad():
        for group, p in _decayed(optimizer):
            sign = -1 if group.get("maximize") else 1
            assert p.grad is not None
            p.grad += sign * group["weight_decay"] * p
    _switch_off(optimizer)


def _shrink(optimizer: Optimizer) -> None:
    with torch.no_grad():
        for group, p in _decayed(optimizer):
            p.mul_(1 - group["lr"] * group["weight_decay"])
    _switch_off(optimizer)


def _decayed(optimizer: Optimizer) -> Sequence[tuple[dict[str, Any], nn.Parameter]]:
    """The parameters that an optimizer would decay, each with its group."""
    return [
        (group, p)
        for group in optimizer.param_groups
        if group.get("weight_decay")
        for p in group["params"]
        if p.grad is not None and not p.grad.is_sparse
    ]
