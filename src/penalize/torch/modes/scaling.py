"""What a GradScaler leaves to a fused optimizer: unscaling, and skipping a step that overflowed.

Other optimizers are stepped with unscaled gradients, or not at all. A fused one is always stepped,
its hooks included, and carries what its kernel has to divide by and whether it has to skip. Both
stay tensors here: nothing waits for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer


def scale_of(optimizer: Optimizer) -> Tensor | None:
    """What the ``.grad`` that the optimizer is about to read is multiplied by; None for 1."""
    scale: Tensor | None = getattr(optimizer, "grad_scale", None)
    return scale


def may_be_skipped(optimizer: Optimizer) -> bool:
    """Whether only the device knows if the optimizer is to skip this step."""
    return getattr(optimizer, "found_inf", None) is not None


def assign(parameter: Tensor, value: Tensor, optimizer: Optimizer) -> None:
    """parameter ← value, unless the optimizer is to skip this step."""
    found_inf: Tensor | None = getattr(optimizer, "found_inf", None)
    if found_inf is not None:
        value = torch.where(found_inf.to(parameter.device) > 0, parameter, value)
    parameter.copy_(value)
