"""How a plan is applied, and how many steps its parameters have taken."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from penalize.torch.clock import Group, OptimizerStep
from penalize.torch.model.targets import Target


class Count:
    """A number of steps. Of those that a fused optimizer skipped only the device knows."""

    def __init__(self, steps: int = 0) -> None:
        self._steps = steps
        self._skipped: Tensor | None = None

    def add(self, step: OptimizerStep) -> None:
        """A step is over."""
        self._steps += 1
        if step.found_inf is not None:
            skipped = (step.found_inf > 0).long()
            self._skipped = skipped if self._skipped is None else self._skipped + skipped

    @property
    def steps(self) -> int:
        """How many were taken. It waits for the device, if some may have been skipped."""
        if self._skipped is not None:
            self._steps -= int(self._skipped)
            self._skipped = None
        return self._steps

    @steps.setter
    def steps(self, steps: int) -> None:
        self._steps, self._skipped = steps, None


class Applied:
    """How one plan is applied, and how many steps its parameters have taken."""

    def __init__(self, *, steps_before: int, scheduled: bool, has_outputs: bool) -> None:
        self.in_loss: set[str] = set()
        """What a loss has penalized since it was last stepped, by name."""

        self.in_compiled_loss = False
        """Whether a compiled loss has, which cannot tell of it itself."""

        self.tied_since: tuple[str, ...] = ()
        """The names of weights that were found to be tied after that was compiled. Where there are
        more of them, it is compiled anew."""

        self.compiled_for: tuple[int, frozenset[str]] = 0, frozenset()
        """How many of these there were when it was compiled, and what was tied then."""

        self.by_loss = False
        """Whether a loss ever has."""

        self.attached = False
        """Whether it was ever attached."""

        self.detached = False
        """Whether an attachment was detached: that it acts nowhere is on purpose."""

        self.warned = False
        """Whether it was warned of, or nobody is to be."""

        self.muted = False
        """Whether its attachments let steps pass, while an audit looks at these without them."""

        self.has_outputs = has_outputs
        """Whether outputs of modules are penalized, whose terms are of one step only."""

        self._before = steps_before
        self._counts: WeakKeyDictionary[Optimizer, Count] = WeakKeyDictionary()
        self.tensor: Tensor | None = None
        """The steps for compiled functions, to which an integer would be a constant."""

        if scheduled:
            self.tensor = torch.full((), steps_before, dtype=torch.int64, device="cpu")

    @property
    def steps(self) -> int:
        """How many steps an optimizer has taken; of several, the one with the most."""
        counts = list(self._counts.values())
        return self._before + max((count.steps for count in counts), default=0)

    @steps.setter
    def steps(self, steps: int) -> None:
        self._counts.clear()
        self._before = steps
        self._show()

    def count(self, step: OptimizerStep) -> None:
        """A step that it has to do with is over."""
        self._counts.setdefault(step.optimizer, Count()).add(step)
        self._show()

    @property
    def counts(self) -> dict[Optimizer, int]:
        """The steps of each optimizer, to be put back."""
        return {optimizer: count.steps for optimizer, count in list(self._counts.items())}

    @counts.setter
    def counts(self, counts: Mapping[Optimizer, int]) -> None:
        self._counts.clear()
        self._counts.update((optimizer, Count(steps)) for optimizer, steps in counts.items())
        self._show()

    def _show(self) -> None:
        if self.tensor is not None:
            self.tensor.fill_(self.steps)


class AppliedPlan(Protocol):
    """A plan, as the book sees it."""

    @property
    def applied(self) -> Applied: ...

    def standing(self) -> list[Target]:
        """What is penalized now, less what the model no longer has."""

    def held(self) -> Iterable[nn.Parameter]:
        """Every parameter of its rows that the model still has, penalized or not."""

    def check_loss(self) -> None:
        """Raise if a compiled loss applies what is attached."""

    def check_newcomers(self, stepped: Collection[int]) -> None:
        """Warn of parameters with these ids that came to the model after it was planned."""

    def trains(self, groups: Mapping[int, Group]) -> bool:
        """Whether a step with these groups moves a model whose outputs are penalized."""

    def settle(self, optimizer: Optimizer) -> None:
        """An optimizer has stepped the model; terms of outputs are of one step only."""
