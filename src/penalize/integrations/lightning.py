"""A plan in Lightning's ``Trainer``."""

from __future__ import annotations

from typing import Any

from penalize.errors import (
    AppliedTwiceError,
    MissingPackageError,
    NoMatchError,
    StateError,
    TrainerError,
)
from penalize.integrations.attached import Attached
from penalize.rules import Rules
from penalize.torch.acting.attachment import Attachment
from penalize.torch.plan import Plan

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.trainer.states import TrainerFn
except ModuleNotFoundError as error:
    raise MissingPackageError("lightning", "penalize.integrations.lightning") from error

_WORDS = {
    AppliedTwiceError: "In Lightning: write weight_decay=0.0 for these parameters in "
    "configure_optimizers, and leave plan.penalty() out of training_step.",
    NoMatchError: "In Lightning the names are those of the LightningModule's parameters, with the "
    'attribute that holds your network in front, such as "model.encoder"; "module." and '
    '"_orig_mod." of wrappers are in none.',
    StateError: "In Lightning: give PenalizeCallback the rules and the mode of the checkpoint, or "
    "load its weights alone (load_from_checkpoint) and call Trainer.fit without ckpt_path.",
}


class PenalizeCallback(Callback):
    """A callback that applies rules in each optimizer step of ``Trainer.fit``, exactly once.

    It plans the module and attaches when the optimizers are there, acts after the trainer has
    accumulated and clipped, logs ``penalty`` and the values of each rule at the trainer's
    ``log_every_n_steps`` and after the last batch of an epoch, and is saved and restored with the
    trainer's checkpoints. It acts in every step of an optimizer, also in one for a batch whose
    ``training_step`` returned None: Lightning steps there too, and the penalty does not depend on
    the data.

    Args:
        rules: see :func:`penalize.torch.regularize`; names are those of the ``LightningModule``.
        mode: how they act, as in ``plan.attach``.
        options: those of ``plan.attach``, and ``roles`` and ``together`` as in ``regularize``. The
            ``GradScaler`` of ``precision="16-mixed"`` is found.

    Raises:
        RulesError, SelectorError, ModeError: rules, mode or options are malformed. What does not
            fit the model or its optimizers is raised by ``fit``, before the first step.
    """

    def __init__(self, rules: Rules | None, mode: str = "gradient", **options: Any) -> None:
        self._attached = Attached(rules, mode, words=_WORDS, **options)

    @property
    def plan(self) -> Plan | None:
        """The plan of the module that is trained, or was last; None before."""
        return self._attached.plan

    @property
    def attachment(self) -> Attachment | None:
        """The attachment to its optimizers; None before the first training."""
        return self._attached.attachment

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot be attached to. Without a checkpoint, a new training begins anew."""
        if stage != TrainerFn.FITTING:
            return
        strategy = type(trainer.strategy)
        if any("DeepSpeed" in kind.__name__ for kind in strategy.__mro__):
            raise TrainerError(
                f"Trainer(strategy=...) is a {strategy.__name__}, and DeepSpeed steps the weights "
                "itself, where no hook of PyTorch runs",
                'write Trainer(strategy="fsdp"), "ddp" or ModelParallelStrategy(), or add '
                "plan.penalty() to the loss in training_step",
            )
        before = self._attached.state_dict()
        goes_on = trainer.global_step > 0 and self.plan is not None
        same = goes_on and self.plan is not None and self.plan.model is pl_module
        self._attached.forget()
        if same:  # fit is called again, and the trainer goes on counting
            self._attached.load_state_dict(before)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Plan, attach, and go on from a checkpoint: model and optimizers are as they train."""
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        waiting = self._attached.waiting
        self._attached.begin(
            pl_module, trainer.optimizers, run=trainer, state=waiting, scaler=scaler
        )

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Log, in the batches whose numbers the trainer writes down, and in the last of an epoch.

        What monitors a number looks for it then, also if the epoch was too short to be logged.
        """
        if trainer.barebones or trainer.fit_loop._should_accumulate():
            return
        if trainer._logger_connector.should_update_logs or trainer.is_last_batch:
            pl_module.log_dict(self._attached.logged(), on_step=True, on_epoch=False, batch_size=1)

    def state_dict(self) -> dict[str, Any]:
        """The state of the attachment, for the trainer's checkpoint."""
        return self._attached.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint; its state waits for the optimizers if they are still to come."""
        self._attached.load_state_dict(state_dict)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Refuse to go on from a checkpoint of a training without these penalties."""
        begun = checkpoint["global_step"] > 0  # what looks for a learning rate saves before
        is_there = self.state_key in checkpoint.get("callbacks", {})
        if trainer.state.fn == TrainerFn.FITTING and begun and not is_there:
            error = StateError("the checkpoint was saved without a PenalizeCallback")
            error.add_note(_WORDS[StateError])
            raise error

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Detach: the training is over. (The doctor, who then looks, raises no ``Exception``.)"""
        if isinstance(exception, Exception):
            self._attached.end()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Detach after ``fit``; the state stays, for checkpoints that are saved afterwards."""
        self._attached.end()
