"""Schedules of learning rates: each run makes its own, by a function of the optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from penalize.errors import PathError

_PLAIN = (bool, int, float, str, list)
_EXPECTED = "scheduler=partial(CosineAnnealingLR, T_max=100)"


class RateSchedule:
    """A schedule of an optimizer's learning rate that goes on after an epoch, or a step; or none.

    Raises:
        PathError: the function makes no scheduler, or one that goes by a loss.
    """

    def __init__(
        self, make: Callable[[Any], LRScheduler] | None, optimizer: Optimizer, every: str
    ) -> None:
        self._every = every
        self._scheduler = None if make is None else _checked(make(optimizer))

    def after(self, what: str) -> None:
        """An epoch or a step is over."""
        if self._scheduler is not None and what == self._every:
            self._scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """The state of the scheduler."""
        return {} if self._scheduler is None else self._scheduler.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the state of another."""
        if self._scheduler is not None and state:
            self._scheduler.load_state_dict(dict(state))

    def described(self) -> str:
        """The settings that make it what it is, as far as they are plain."""
        found = {k: v for k, v in self.state_dict().items() if isinstance(v, _PLAIN)}
        return f"{type(self._scheduler).__name__} {found!r} every {self._every}"


def check_scheduler(scheduler: Any, every: Any) -> None:
    """Raise :class:`PathError` for what makes no schedule of each run's own."""
    if scheduler is not None and (not callable(scheduler) or isinstance(scheduler, LRScheduler)):
        raise PathError(
            f"Training got the scheduler {type(scheduler).__name__}, and each run needs its own",
            f"expected a function of the optimizer: {_EXPECTED}",
        )
    if every not in ("epoch", "step"):
        raise PathError(f"Training got scheduler_every={every!r}", 'expected "epoch" or "step"')


def _checked(made: Any) -> LRScheduler:
    if isinstance(made, LRScheduler) and not isinstance(made, ReduceLROnPlateau):
        return made
    why = "goes by a loss" if isinstance(made, LRScheduler) else "is none"
    raise PathError(
        f"the scheduler that Training got makes a {type(made).__name__}, which {why}",
        f"give one that goes by the number of epochs or steps: {_EXPECTED}",
    )
