"""The mode that ``regularize`` is asked for, by its name."""

from __future__ import annotations

from penalize.errors import ModeError
from penalize.halfspace import AVERAGE, check_average
from penalize.keras.halfspace import Halfspace
from penalize.keras.modes import Loss, Mode, Proximal

MODES: dict[str, type[Mode]] = {mode.name: mode for mode in (Loss, Proximal, Halfspace)}


def mode_named(name: object, average: object = None) -> Mode:
    """The mode of that name.

    Raises:
        ModeError: there is none, or it keeps no average, or that is no number in [0, 1).
    """
    if not isinstance(name, str) or name not in MODES:
        raise ModeError(f"there is no mode {name!r}", f"expected one of {', '.join(MODES)}")
    if MODES[name] is Halfspace:
        return Halfspace(check_average(AVERAGE if average is None else average))
    if average is not None:
        raise ModeError(
            f"average={average!r} is an option of mode='halfspace', and this is mode={name!r}",
            "leave it out",
        )
    return MODES[name]()
