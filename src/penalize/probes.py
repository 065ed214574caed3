"""Showing a plan's penalties to an audit while a loss is computed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

Probe = Callable[[str, Any], Any]
"""(name of a row, its penalty) → what takes the place of the penalty."""


class Probed(ABC):
    """A plan whose penalties can be shown to a probe: its own, and those that Keras adds itself."""

    _probe: Probe | None = None

    @abstractmethod
    def penalized(self) -> Iterable[tuple[str, Any]]:
        """What is penalized now: the names of rows, each with its variable."""

    def seen(self, name: str, penalty: Any) -> Any:
        """A row's penalty, as ``penalty()`` adds it up."""
        return penalty if self._probe is None else self._probe(name, penalty)

    @contextmanager
    def probed(self, probe: Probe) -> Iterator[None]:
        """Within the block, each penalty is shown to the probe.

        A regularizer on a Keras variable enters a loss by ``model.losses``, past the plan.
        """
        changed = []
        try:
            for name, variable in self.penalized():
                own = getattr(variable, "regularizer", None)
                if own is not None:
                    changed.append((variable, own))
                    variable.regularizer = partial(_shown_to, probe, name, own)
            self._probe = probe
            yield
        finally:
            self._probe = None
            for variable, own in changed:
                variable.regularizer = own


def _shown_to(probe: Probe, name: str, regularizer: Callable[[Any], Any], w: Any) -> Any:
    return probe(name, regularizer(w))
