"""What a callback does in any trainer: plan its model, attach, log, save, go on, and end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import finalize, ref

from torch import nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from penalize.callsite import called_at, callsite
from penalize.errors import PenalizeError, TrainerError
from penalize.logs import log
from penalize.planning import Roles
from penalize.rules import Rules, parse
from penalize.torch.acting.attachment import Attachment
from penalize.torch.acting.state import whole
from penalize.torch.doors import MARK
from penalize.torch.joining import Together
from penalize.torch.modes.choice import mode_of
from penalize.torch.plan import Plan
from penalize.torch.regularize import regularize

_acting: dict[int, ref[Attached]] = {}
"""What acts now, in all trainers. No WeakSet: it cannot be looked through while a thread adds."""


class Attached:
    """Rules in a trainer: while it trains, the plan of its model, attached to its optimizers.

    A copy, and what is unpickled, has the rules and waits for a training with the state of then.

    Args:
        rules: see :func:`penalize.torch.regularize`.
        mode: how the plan acts; see ``Plan.attach``, also for the options.
        words: kind of error → what to write in this trainer, as a note to the error.
        roles: corrects what a parameter is taken for; see :func:`penalize.torch.regularize`.
        together: groups that span parameters; the same.
        clip: whether what the trainer clips has the penalty in it.
        scaler: the trainer's ``GradScaler``, where it cannot be asked for it.
        values: whether ``attachment.penalty`` is to have Σ Ω(w) of each step.
        average: how much of the average of the data's gradient stays in a step.

    Raises:
        RulesError, SelectorError: the rules are malformed.
        ModeError: there is no such mode, or an option does not go with it.
    """

    def __init__(
        self,
        rules: Rules | None,
        mode: str = "gradient",
        *,
        words: Mapping[type[PenalizeError], str],
        roles: Roles | None = None,
        together: Together | None = None,
        clip: str = "without",
        scaler: GradScaler | None = None,
        values: bool = False,
        average: float | None = None,
    ) -> None:
        self.plan: Plan | None = None
        self.attachment: Attachment | None = None
        self.waiting: Mapping[str, Any] | None = None
        """A state that was loaded while nothing was attached."""

        self._run: object = None
        self._place = callsite()
        self._words = words
        self._rules, self._roles, self._together, self._mode = rules, roles, together, mode
        self._options = dict[str, Any](clip=clip, scaler=scaler, values=values, average=average)
        with self._explained():
            parse({} if rules is None else rules, "rule", self._place)
            mode_of(mode, **self._options)

    @property
    def acts(self) -> bool:
        """Whether it is attached now."""
        return self.attachment is not None and self.attachment.alive

    def begin(
        self,
        model: nn.Module,
        optimizers: Sequence[Optimizer],
        *,
        run: object,
        state: Mapping[str, Any] | None = None,
        scaler: GradScaler | None = None,
    ) -> None:
        """Plan the model as it is now, attach, and go on from a state.

        Args:
            model: what is trained; wrappers are looked through.
            optimizers: all that step it.
            run: what stands for this training, and for no other: two callbacks in it are refused.
            state: what an attachment saved; None to begin anew.
            scaler: the trainer's, or None.

        Raises:
            TrainerError: the training has such a callback already.
            PenalizeError: whatever ``regularize``, ``attach`` and ``load_state_dict`` raise.

        Nothing is attached if it raises.
        """
        self._check_alone(model, run)
        options = self._options
        if options["clip"] == "with" and options["scaler"] is None:
            options = {**options, "scaler": scaler}
        marked = [(g, g[MARK]) for each in optimizers for g in each.param_groups if MARK in g]
        with self._explained():
            plan = regularize(model, self._rules, roles=self._roles, together=self._together)
            attachment = plan.attach(optimizers, self._mode, **options)
            try:
                if state is not None:
                    attachment.load_state_dict(state)
            except BaseException:
                attachment.detach()
                for group, mark in marked:  # it was saved with penalties, and is not without now
                    group[MARK] = mark
                raise
        self.plan, self.attachment, self._run, self.waiting = plan, attachment, run, None
        _acting[id(self)] = ref(self)
        finalize(self, _acting.pop, id(self), None).atexit = False

    def end(self) -> None:
        """Detach, if it is attached. The plan and the state stay to be read."""
        self._run = None
        _acting.pop(id(self), None)
        if self.acts and self.attachment is not None:
            self.attachment.detach()

    def forget(self) -> None:
        """Have the next training begin anew."""
        self.end()
        self.plan = self.attachment = self.waiting = None

    def logged(self) -> dict[str, float]:
        """What belongs into a log now; see :func:`penalize.log`."""
        return {} if self.plan is None else log(self.plan)

    def state_dict(self) -> dict[str, Any]:
        """What ``attachment.state_dict`` gives, after the training too; empty before it.

        Without shards: one rank writes a trainer's checkpoint. Every rank has to ask.
        """
        if self.attachment is None:
            return dict(self.waiting or {})
        return dict(whole(self.attachment.state_dict()))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; where nothing is attached yet, it waits for the training to begin.

        Raises:
            StateError: it was saved with other penalties.
        """
        if self.acts and self.attachment is not None:
            with self._explained():
                self.attachment.load_state_dict(state)
        else:
            self.waiting = state

    def _check_alone(self, model: nn.Module, run: object) -> None:
        """Two in one training are refused. Those whose training never told that it ended, end."""
        for other in filter(None, [held() for held in list(_acting.values())]):
            if other.acts and other._run is run:
                raise TrainerError(
                    f"a second PenalizeCallback ({self._place}) came to a training that has one "
                    f"({other._place})",
                    "give one, with the rules of both",
                )
            if other is self or (other.plan is not None and other.plan.model is model):
                other.end()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Errors say where the callback was made, and what to write in this trainer."""
        try:
            with called_at(self._place):
                yield
        except PenalizeError as error:
            for kind, words in self._words.items():
                if isinstance(error, kind):
                    error.add_note(words)
            raise

    # What copies and pickles of a callback have: a plan is bound to its model, an attachment to
    # hooks, and neither to the copy.

    def __getstate__(self) -> dict[str, Any]:
        bound = {"plan": None, "attachment": None, "_run": None}
        return {**vars(self), **bound, "waiting": self.state_dict() or None}
