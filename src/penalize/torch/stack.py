"""Questions that the stack answers: what is running now, and on whose behalf."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType

from torch.amp import GradScaler
from torch.optim import Optimizer

from penalize.torch.clock import OptimizerStep


def is_stepping(optimizer: Optimizer) -> bool:
    """Whether it is in the middle of a step, also of one that began before the clock listened."""
    code = getattr(
        type(optimizer).step, "__code__", None
    )  # PyTorch's wrapper, that calls the hooks
    return any(
        frame.f_code is code and frame.f_locals.get("self") is optimizer for frame in _stack()
    )


def is_stepped_by_a_scaler(step: OptimizerStep) -> bool:
    """Whether a GradScaler that is enabled makes this step."""
    if step.found_inf is not None:
        return True
    scalers = (frame.f_locals["self"] for frame in _stack() if frame.f_code in _SCALER_CODE)
    return any(scaler.is_enabled() for scaler in scalers)


_SCALER_CODE = {GradScaler.step.__code__, GradScaler._maybe_opt_step.__code__}


def _stack() -> Iterator[FrameType]:
    """The frames that are running, from here upwards."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back
