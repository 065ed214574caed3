"""A plan in a loop with accelerate's ``Accelerator``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.optim import Optimizer

from penalize.errors import MissingPackageError, TrainerError
from penalize.torch.acting.attachment import Attachment
from penalize.torch.acting.state import whole
from penalize.torch.plan import Plan

try:
    from accelerate import Accelerator
except ModuleNotFoundError as error:
    raise MissingPackageError("accelerate", "penalize.integrations.accelerate") from error


def prepare(
    plan: Plan,
    accelerator: Accelerator,
    optimizer: Optimizer | Sequence[Optimizer],
    mode: str = "gradient",
    **options: Any,
) -> Attachment:
    """Attach a plan, and have the accelerator save and load its state.

    Call it after ``accelerator.prepare(model, optimizer)``. The penalty then acts once in each step
    that accelerate lets through: not in the micro-batches of ``accelerator.accumulate``, nor in
    steps that a ``GradScaler`` skips; after ``accelerator.clip_grad_norm_``.
    ``accelerator.save_state`` and ``load_state`` have the state of the attachment in them. For the
    log: ``accelerator.log(penalize.log(plan), step)``.

    Args:
        plan: of the model, made before or after it was prepared.
        accelerator: what prepared the optimizer.
        optimizer: what it gave back, or the optimizer within; or several.
        mode: how the plan acts, as in ``plan.attach``.
        options: those of ``plan.attach``. The accelerator's ``GradScaler`` is found.

    Raises:
        TrainerError: something else than PyTorch steps the weights.
        PenalizeError: whatever ``plan.attach`` raises.
    """
    how = accelerator.distributed_type.value
    if how in ("DEEPSPEED", "MEGATRON_LM"):
        raise TrainerError(
            f"the Accelerator has distributed_type={how}, which steps the weights itself, where no "
            "hook of PyTorch runs",
            "write Accelerator(fsdp_plugin=FullyShardedDataParallelPlugin(fsdp_version=2)) or let "
            "`accelerate config` choose FSDP or DDP, or add plan.penalty() to the loss",
        )
    if options.get("clip") == "with":
        options.setdefault("scaler", accelerator.scaler)
    attachment = plan.attach(optimizer, mode, **options)
    accelerator.register_for_checkpointing(_Saved(attachment))
    return attachment


class _Saved:
    """An attachment in the checkpoints of accelerate, which one rank writes: without shards."""

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment

    def state_dict(self) -> dict[str, Any]:
        return dict(whole(self._attachment.state_dict()))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._attachment.load_state_dict(state)
