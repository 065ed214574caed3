"""A plan in the engines of ignite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from penalize.errors import (
    AppliedTwiceError,
    MissingPackageError,
    NoMatchError,
    OptimizerError,
    PenalizeError,
    StateError,
    TrainerError,
)
from penalize.integrations.attached import Attached
from penalize.rules import Rules
from penalize.torch.acting.attachment import Attachment
from penalize.torch.doors import MARK
from penalize.torch.plan import Plan

try:
    from ignite.engine import Engine, Events
except ModuleNotFoundError as error:
    raise MissingPackageError("pytorch-ignite", "penalize.integrations.ignite", "ignite") from error

_WORDS: dict[type[PenalizeError], str] = {
    AppliedTwiceError: "In ignite: make the optimizer with weight_decay=0.0, and leave "
    "plan.penalty() out of the loss in the update function of the Engine.",
    NoMatchError: "In ignite the names are those of the model that attach(trainer, model, "
    "optimizer) was given.",
    OptimizerError: "In ignite: give attach(trainer, model, optimizer) the optimizer, or a list of "
    "them, that the update function of the Engine steps.",
    StateError: "In ignite: have the callback in to_save of Checkpoint and in to_load of "
    "Checkpoint.load_objects, with the rules and the mode that were saved.",
}


class PenalizeCallback:
    """A handler that applies rules in each optimizer step of an engine, exactly once.

    .. code-block:: python

        penalties = PenalizeCallback({kernels: L1(1e-4)}, mode="proximal")
        penalties.attach(trainer, model, optimizer)
        to_save = {"trainer": trainer, "model": model, "optimizer": optimizer}
        to_save["penalties"] = penalties

    It acts once in each ``optimizer.step()`` of the update function, however many micro-batches
    were accumulated, and after any clipping there; and writes ``penalty``,
    ``penalties/<rule>``, ``zeros`` and the groups that are left (:func:`penalize.log`) into
    ``trainer.state.metrics``, where the loggers of ignite find them that are attached later.

    Args:
        rules: see :func:`penalize.torch.regularize`.
        mode: how they act, as in ``plan.attach``.
        options: those of ``plan.attach``, and ``roles`` and ``together`` as in ``regularize``. A
            ``GradScaler`` with ``clip="with"`` is ``scaler=``.

    Raises:
        RulesError, SelectorError, ModeError: rules, mode or options are malformed.
    """

    def __init__(self, rules: Rules | None, mode: str = "gradient", **options: Any) -> None:
        self._attached = Attached(rules, mode, words=_WORDS, **options)
        self._handlers: list[Any] = []
        self._loaded: set[str] = set()
        """What was loaded for the next run: an optimizer that was saved with penalties, a state."""

    @property
    def plan(self) -> Plan | None:
        """The plan of the model; None before :meth:`attach`."""
        return self._attached.plan

    @property
    def attachment(self) -> Attachment | None:
        """The attachment to the optimizers; None before :meth:`attach`."""
        return self._attached.attachment

    def attach(
        self,
        trainer: Engine,
        model: nn.Module,
        optimizer: Optimizer | Sequence[Optimizer],
        event: Any = Events.EPOCH_COMPLETED,
    ) -> Attachment:
        """Plan the model, and act in the optimizer's steps until :meth:`detach`.

        Before or after ``Checkpoint.load_objects``, as is convenient.

        Args:
            trainer: the engine whose update function steps the optimizer.
            model: what it trains; wrappers such as DDP are looked through.
            optimizer: what steps it, or several.
            event: when the numbers are written: ``Events.ITERATION_COMPLETED(every=100)``.

        Raises:
            TrainerError: it is attached already, the trainer has another one, or is none.
            PenalizeError: what ``regularize``, ``plan.attach`` and ``load_state_dict`` raise.
            ValueError: ignite's, if the trainer has no such event.

        Nothing is attached if it raises.
        """
        if not isinstance(trainer, Engine):
            raise TrainerError(
                f"attach got a {type(trainer).__name__} for the trainer",
                "pass ignite's Engine first: attach(trainer, model, optimizer)",
            )
        if self._attached.acts:
            raise TrainerError(
                "attach(trainer, model, optimizer) was called twice on one PenalizeCallback",
                "make one for each trainer, or call detach() first",
            )
        optimizers = [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer)
        marked = any(MARK in group for each in optimizers for group in each.param_groups)
        waiting = self._attached.waiting
        logs = trainer.add_event_handler(event, self._log)  # first: there may be no such event
        try:
            self._attached.begin(model, optimizers, run=trainer, state=waiting)
        except BaseException:
            logs.remove()
            raise
        self._loaded |= {"optimizer"} if marked else set()
        attachment = self._attached.attachment
        assert attachment is not None
        self._handlers = [
            logs,
            trainer.add_event_handler(Events.STARTED, self._look),
            *(o.register_load_state_dict_pre_hook(self._take) for o in attachment.optimizers),
        ]
        return attachment

    def detach(self) -> None:
        """Stop acting and logging. Weights and the optimizer's state stay as they are."""
        self._attached.end()
        for handler in self._handlers:
            handler.remove()
        self._handlers = []

    def state_dict(self) -> dict[str, Any]:
        """The state of the attachment, for ``to_save``."""
        return self._attached.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a checkpoint; before :meth:`attach` the state waits for it.

        Raises:
            StateError: it was saved with other rules, or another mode.
        """
        self._attached.load_state_dict(state_dict)
        self._loaded.add("state")

    def _take(self, optimizer: Optimizer, state_dict: Mapping[str, Any]) -> None:
        if any(MARK in group for group in state_dict["param_groups"]):
            self._loaded.add("optimizer")

    def _look(self, trainer: Engine) -> None:
        if self._loaded == {"optimizer"}:
            error = StateError(
                f"the optimizer that goes on at iteration {trainer.state.iteration} was saved with "
                "penalties, and their state was not loaded"
            )
            error.add_note(_WORDS[StateError])
            raise error
        self._loaded.clear()

    def _log(self, trainer: Engine) -> None:
        trainer.state.metrics.update(self._attached.logged())
