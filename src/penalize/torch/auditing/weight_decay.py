"""The weight decay that really entered a step: measured, not read off the optimizer's name.

The step is replayed without any weight decay; with an L2 in the gradient in its place; and with the
weights shrunk before the update in its place. Where what the step did of itself is neither, it is
replayed with a decay that is too strong to be overlooked, and that is told apart by what it shrank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from penalize.torch.auditing.measured_decay import LARGER, Measurement, strong_decay
from penalize.torch.auditing.replay import Act, Replay, Seen


def measure(replay: Replay, call: Callable[[], Any], found: Seen) -> Measurement | None:
    """Replay a step with other decays; None if there is none to be measured."""
    if not any(group.get("weight_decay") for group in found.groups.values()):
        return None
    # Of an optimizer that wraps another one only the inner one updates, and so decays.
    updating = set(found.optimizers.values())

    def run_with(*acts: Act) -> Seen:
        def act(optimizer: Optimizer) -> None:
            if optimizer in updating:
                for each in acts:
                    each(optimizer)

        return replay.run(call, act)

    def perhaps(*acts: Act) -> Seen | None:
        """None where a step does not go on from gradients or weights that were changed."""
        try:
            return run_with(*acts)
        except Exception:  # noqa: BLE001  # it is the optimizer's own, and the step as it is raises none
            return None

    again, without = run_with(), run_with(_switch_off)
    coupled, decoupled = perhaps(_put_in_gradient), perhaps(_shrink)
    measured = Measurement(found, again, without, coupled, decoupled)
    decayed = [p for p in replay.parameters if found.groups.get(id(p), {}).get("weight_decay")]
    if all(measured.is_clear(p) for p in decayed):
        return measured
    strengthen = partial(_strengthen, 1.0)
    measured = measured._replace(strong=perhaps(strengthen))
    strength = measured.stronger(decayed) if measured.strong is not None else 1.0
    if strength > 1:
        stronger = partial(_strengthen, strength)
        further = measured._replace(strong=perhaps(stronger), strength=strength)
        if further.is_strong(decayed):
            measured, strengthen = further, stronger
    if all(measured.is_clear(p) for p in decayed):
        return measured
    larger = perhaps(_switch_off, _enlarge), perhaps(strengthen, _enlarge)
    if larger[0] is None or larger[1] is None:
        return measured
    return measured._replace(larger=(larger[0], larger[1]))


# --- in place of the optimizer's own ------------------------------------------------------------


def _switch_off(optimizer: Optimizer) -> None:
    for group in optimizer.param_groups:
        if "weight_decay" in group:
            group["weight_decay"] = 0.0


def _put_in_gradient(optimizer: Optimizer) -> None:
    for group, p in _decayed(optimizer):
        sign = -1 if group.get("maximize") else 1
        assert p.grad is not None
        with torch.set_grad_enabled(p.grad.requires_grad):  # which may be differentiated again
            p.grad = p.grad + sign * group["weight_decay"] * p.detach()
    _switch_off(optimizer)


def _shrink(optimizer: Optimizer) -> None:
    with torch.no_grad():
        for group, p in _decayed(optimizer):
            p.mul_(1 - group["lr"] * group["weight_decay"])
    _switch_off(optimizer)


def _strengthen(strength: float, optimizer: Optimizer) -> None:
    for group in optimizer.param_groups:
        if group.get("weight_decay"):
            group["weight_decay"] = strength * strong_decay(group)


def _enlarge(optimizer: Optimizer) -> None:
    with torch.no_grad():
        for _, p in _decayed(optimizer, all_of_them=True):
            assert p.grad is not None
            p.grad.mul_(LARGER)


def _decayed(
    optimizer: Optimizer, *, all_of_them: bool = False
) -> Sequence[tuple[dict[str, Any], nn.Parameter]]:
    """The parameters that an optimizer would decay, each with its group."""
    return [
        (group, p)
        for group in optimizer.param_groups
        if group.get("weight_decay") or all_of_them
        for p in group["params"]
        if p.grad is not None and not p.grad.is_sparse
    ]
