"""A plan in the ``Trainer`` of transformers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from pickle import UnpicklingError
from types import FrameType
from typing import Any

import torch
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
from penalize.torch.plan import Plan

try:
    from transformers import (
        Trainer,
        TrainerCallback,
        TrainerControl,
        TrainerState,
        TrainingArguments,
    )
except ModuleNotFoundError as error:
    raise MissingPackageError("transformers", "penalize.integrations.transformers") from error

_FILE = "penalize.pt"

_WORDS: dict[type[PenalizeError], str] = {
    AppliedTwiceError: "In transformers: write TrainingArguments(weight_decay=0.0), or "
    "PenalizeCallback(..., replaces_weight_decay=True), which turns it off; and leave "
    "plan.penalty() out of compute_loss.",
    NoMatchError: "In transformers the names are those of the model that Trainer(model=...) was "
    'given, without the "module." and "_orig_mod." of wrappers.',
    OptimizerError: "In transformers: TrainingArguments(optim=...) has to name an optimizer that "
    "steps the model's own parameters, as adamw_torch does; LOMO and the layerwise ones do not.",
    StateError: "In transformers: give PenalizeCallback the rules and the mode of the checkpoint, "
    "or load its weights alone (from_pretrained) and call Trainer.train without "
    "resume_from_checkpoint.",
}


class PenalizeCallback(TrainerCallback):
    """A callback that applies rules in each optimizer step of ``Trainer.train``, exactly once.

    It plans the model and attaches when training begins, acts after the Trainer has accumulated and
    clipped (``max_grad_norm``), and writes ``penalty`` and the values of each rule into the logs
    that the Trainer keeps and reports (``logging_steps``, ``report_to``). Each ``checkpoint-N`` has
    its state in ``penalize.pt``; ``resume_from_checkpoint`` goes on from it.

    Args:
        rules: see :func:`penalize.torch.regularize`; names are those of the model.
        mode: how they act, as in ``plan.attach``.
        replaces_weight_decay: whether to set the optimizer's ``weight_decay`` to 0 everywhere, so
            that only the rules decay. Without it an L2 beside ``TrainingArguments(weight_decay=…)``
            is refused.
        options: those of ``plan.attach``, and ``roles`` and ``together`` as in ``regularize``. The
            ``GradScaler`` of ``fp16=True`` is found.

    Raises:
        RulesError, SelectorError, ModeError: rules, mode or options are malformed. What does not
            fit the model or its optimizer is raised by ``train``, before the first step.
    """

    def __init__(
        self,
        rules: Rules | None,
        mode: str = "gradient",
        *,
        replaces_weight_decay: bool = False,
        **options: Any,
    ) -> None:
        self._attached = Attached(rules, mode, words=_WORDS, **options)
        self._replaces = replaces_weight_decay

    @property
    def plan(self) -> Plan | None:
        """The plan of the model that is trained, or was last; None before."""
        return self._attached.plan

    @property
    def attachment(self) -> Attachment | None:
        """The attachment to its optimizer; None before the first training."""
        return self._attached.attachment

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        optimizer: Any = None,
        **_: Any,
    ) -> None:
        """Plan, attach, and go on from a checkpoint: the optimizer's own state is loaded."""
        if args.deepspeed or model is None or not isinstance(optimizer, Optimizer):
            raise TrainerError(
                f"the Trainer's optimizer is a {type(optimizer).__name__}, and DeepSpeed steps the "
                "weights itself, where no hook of PyTorch runs",
                "leave TrainingArguments(deepspeed=...) out, and write fsdp=... for what is too "
                "large for one device, or add plan.penalty() to the loss in compute_loss, divided "
                "by gradient_accumulation_steps if the model's forward takes **kwargs",
            )
        trainer, resumed_from = _training()
        checkpoint = resumed_from or (state.global_step and _checkpoint(args, state))
        saved = _read(Path(checkpoint)) if checkpoint else None
        with _without_decay(optimizer) if self._replaces else nullcontext():
            scaler = getattr(optimizer, "scaler", None)
            self._attached.begin(model, [optimizer], run=state, state=saved, scaler=scaler)
        callbacks = [] if trainer is None else trainer.callback_handler.callbacks
        if self in callbacks:  # before those that report what on_log has
            callbacks.insert(0, callbacks.pop(callbacks.index(self)))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Write the values into the log of a training step, and into the Trainer's history."""
        if self._attached.acts and logs is not None and "loss" in logs:
            values = self._attached.logged()
            logs.update(values)
            state.log_history[-1].update(values)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Write the state into the checkpoint that the Trainer has just saved."""
        folder = _checkpoint(args, state)
        if not self._attached.acts:
            return
        saved = self._attached.state_dict()
        if args.should_save and folder.is_dir():  # a search for hyperparameters saves elsewhere
            torch.save(saved, folder / f"{_FILE}.new")
            os.replace(folder / f"{_FILE}.new", folder / _FILE)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Detach: the optimizer may be stepped without the Trainer, or by another training."""
        self._attached.end()


def _training() -> tuple[Trainer | None, str | None]:
    """The trainer that calls back, and what it resumes from: no event has either of them."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        names = frame.f_locals
        if isinstance(names.get("self"), Trainer):
            return names["self"], names.get("resume_from_checkpoint")
        frame = frame.f_back
    return None, None


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    """Where the Trainer saves at this step."""
    return Path(args.output_dir or "") / f"checkpoint-{state.global_step}"


def _read(checkpoint: Path) -> Mapping[str, Any]:
    """The state that :meth:`PenalizeCallback.on_save` has written there."""
    try:
        saved: Mapping[str, Any] = torch.load(checkpoint / _FILE, weights_only=True)
    except FileNotFoundError:
        problem = f"{checkpoint} has no {_FILE}: it was saved without a PenalizeCallback"
    except (OSError, RuntimeError, UnpicklingError) as error:
        problem = f"{checkpoint / _FILE} cannot be read: {error}"
    else:
        return saved
    refusal = StateError(problem)
    refusal.add_note(_WORDS[StateError])
    raise refusal


@contextmanager
def _without_decay(optimizer: Optimizer) -> Iterator[None]:
    """Set the optimizer's weight decay to 0, for good unless the block raises."""
    before = [group.get("weight_decay") for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        if "weight_decay" in group:
            group["weight_decay"] = 0.0
    try:
        yield
    except BaseException:
        for group, decay in zip(optimizer.param_groups, before, strict=True):
            if decay is not None:
                group["weight_decay"] = decay
        raise
