"""The mode that ``plan.attach`` is asked for, by its name and options."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch.amp import GradScaler

from penalize.errors import ModeError
from penalize.halfspace import check_average
from penalize.torch.modes.at_backward import AtBackward
from penalize.torch.modes.base import Mode
from penalize.torch.modes.decoupled import Decoupled
from penalize.torch.modes.gradient import Gradient
from penalize.torch.modes.halfspace import Halfspace
from penalize.torch.modes.proximal import Proximal

MODES: dict[str, type[Mode]] = {
    mode.name: mode for mode in (Gradient, Decoupled, Proximal, Halfspace)
}
"""All of them: a new one stands here."""


def mode_of(
    name: object,
    clip: object,
    scaler: GradScaler | None,
    values: object = False,
    average: object = None,
) -> Callable[[], Mode]:
    """What makes the mode for each optimizer.

    Raises:
        ModeError: there is no such mode, no such word, the two do not go together, or the scaler is
            none.
    """
    if not isinstance(name, str) or name not in MODES:
        raise ModeError(f"there is no mode {name!r}", f"expected one of {', '.join(MODES)}")
    chosen = MODES[name]
    if not isinstance(scaler, GradScaler | None):
        raise ModeError(f"scaler={scaler!r}", "expected the torch.amp.GradScaler of the loop")
    if clip not in ("without", "with"):
        raise ModeError(f"clip={clip!r}", 'expected "without" or "with"')
    if values not in (False, True):
        raise ModeError(f"values={values!r}", "expected True or False")
    if values and (chosen is Proximal or clip == "with"):
        found = 'mode="proximal"' if chosen is Proximal else 'clip="with"'
        raise ModeError(
            f"the option values=True computes the penalty with its gradient, and {found} computes "
            "that at another time, or not at all",
            "leave values out, and call plan.breakdown() where you log",
        )
    options: dict[str, Any] = {"values": bool(values)}
    if average is not None:
        if chosen not in (Proximal, Halfspace):
            raise ModeError(
                f"the option average={average!r} tells zeros from what is not 0, and "
                f"mode={name!r} makes no zeros",
                'leave average out, or use mode="halfspace"',
            )
        options["average"] = check_average(average)
    if clip == "without":
        return partial(chosen, **options)
    if chosen is Halfspace:
        raise ModeError(
            'clip="with" adds the penalty at the end of the first backward pass of a step, and '
            'mode="halfspace" has to know the gradient of all of them',
            'leave clip out, or use mode="gradient"',
        )
    if chosen is not Gradient:
        raise ModeError(
            f'clip="with" clips gradients, and mode={chosen.name!r} adds none',
            'use mode="gradient"',
        )
    return partial(AtBackward, scaler)
