"""What a copy of an attachment is: its state, and nothing that acts."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from penalize.errors import OptimizerError
from penalize.torch import doors


class CopiedAttachment:
    """A dead attachment: what ``copy`` and ``pickle`` make of one, in an object that holds it.

    Hooks are not copied, an optimizer's no more than an attachment's. This one acts nowhere, and
    the copied optimizer raises :class:`LostAttachmentError` in a step without penalties. To go on,
    attach to it anew: ``plan.attach(optimizer).load_state_dict(copied.state_dict())``.
    """

    alive = False
    """Whether it acts: never."""

    penalty = None
    """Σ Ω(w) of the last step: there is none."""

    def __init__(self, kind: str, mode: str, place: str, state: Mapping[str, Any]) -> None:
        self._kind = kind
        self._place = place
        self._state = state
        self.mode = mode
        """What the mode was."""

        doors.watch()  # in this process, too, an optimizer is looked at that lost its attachment

    @property
    def optimizers(self) -> list[Any]:
        """The optimizers that it is attached to: none."""
        return []

    @property
    def steps(self) -> list[int]:
        """How many steps each optimizer had taken with it when it was copied."""
        return list(self._state["steps"])

    def detach(self) -> None:
        """Do nothing: it does not act."""

    def state_dict(self) -> dict[str, Any]:
        """The state of the attachment when it was copied."""
        return copy.deepcopy(dict(self._state))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raise :class:`OptimizerError`: a copy does not go on."""
        raise OptimizerError(
            f"{self} was to take a state", "attach a plan of the copied model to its optimizer"
        )

    def __reduce__(self) -> Any:
        return type(self), (self._kind, self.mode, self._place, self._state)

    def __str__(self) -> str:
        return (
            f"a copy of the attachment to {self._kind} in mode {self.mode!r} ({self._place}), "
            "which acts nowhere"
        )

    def __repr__(self) -> str:
        return f"<CopiedAttachment: {self._kind}, mode={self.mode!r}, acts nowhere>"
