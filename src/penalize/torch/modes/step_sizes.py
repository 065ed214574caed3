"""The proximal step that a PyTorch optimizer really took; see :mod:`penalize.steps`.

Each function reads the state after the update.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from penalize.regularizers.base import Regularizer
from penalize.steps import SLACK, Step


class Taken(NamedTuple):
    """The step that was taken: factor/(scale·√second + offset), or the factor alone.

    Numbers may also be tensors without axes, where a capturable optimizer keeps its count on the
    device.
    """

    factor: float | Tensor
    second: Tensor | None = None
    """The second moment that the optimizer keeps, or its like; None where it keeps none."""

    scale: float | Tensor = 1.0
    offset: float | Tensor = 0.0
    is_squared: bool = True
    """Whether the root of ``second`` is taken."""

    @property
    def denominator(self) -> Tensor | None:
        """Of the step, per element."""
        if self.second is None:
            return None
        root = self.second.sqrt() if self.is_squared else self.second
        return root * self.scale + self.offset


StepSize = Callable[[Mapping[str, Any], Mapping[str, Any]], Taken]
"""(param group, state of the parameter) → its step."""


def rate_of(group: Mapping[str, Any]) -> float | Tensor:
    """The learning rate: a number, or a tensor without axes."""
    lr: float | Tensor = group["lr"]
    return lr.reshape(()) if isinstance(lr, Tensor) else lr


def _sgd(group: Mapping[str, Any], state: Mapping[str, Any]) -> Taken:
    momentum = group["momentum"]
    if not momentum:
        return Taken(rate_of(group))
    return Taken(rate_of(group) * (1 - group["dampening"]) / (1 - momentum))


# A capturable optimizer counts its steps on the device. There the formulas below are of tensors, so
# that nothing waits for it.


def _adam(group: Mapping[str, Any], state: Mapping[str, Any]) -> Taken:
    second = state["max_exp_avg_sq"] if group["amsgrad"] else state["exp_avg_sq"]
    correction = 1 - group["betas"][1] ** _count(state)
    return Taken(rate_of(group), second, _over_root(correction), group["eps"])


def _nadam(group: Mapping[str, Any], state: Mapping[str, Any]) -> Taken:
    beta1, beta2 = group["betas"]
    count = _count(state)
    mu = beta1 * (1 - 0.5 * 0.96 ** (count * group["momentum_decay"]))
    mu_next = beta1 * (1 - 0.5 * 0.96 ** ((count + 1) * group["momentum_decay"]))
    product = _number(state["mu_product"])
    # A constant gradient g has the first moment (1 − β₁ᵗ)·g.
    from_momentum = mu_next / (1 - product * mu_next) * (1 - beta1**count)
    factor = rate_of(group) * ((1 - mu) / (1 - product) + from_momentum)
    return Taken(factor, state["exp_avg_sq"], _over_root(1 - beta2**count), group["eps"])


def _radam(group: Mapping[str, Any], state: Mapping[str, Any]) -> Taken:
    beta2 = group["betas"][1]
    count = _count(state)
    correction = 1 - beta2**count
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * count * beta2**count / correction
    rectified = (length - 4) * (length - 2) * longest
    rectified = rectified / ((longest - 4) * (longest - 2) * length)
    adaptive = length > 5
    if adaptive is False:
        return Taken(rate_of(group))  # in its first steps it takes those of momentum alone
    factor = rate_of(group) * _choose(adaptive, abs(rectified) ** 0.5, 1.0)
    scale = _over_root(correction)
    offset = _choose(adaptive, group["eps"] * scale, 1.0)
    return Taken(factor, state["exp_avg_sq"], _choose(adaptive, scale, 0.0), offset)


def _adamax(group: Mapping[str, Any], state: Mapping[str, Any]) -> Taken:
    return Taken(rate_of(group), state["exp_inf"], is_squared=False)


def _adagrad(group: Mapping[str, Any], state: Mapping[str, Any]) -> Taken:
    rate = rate_of(group) / (1 + (_count(state) - 1) * group["lr_decay"])
    return Taken(rate, state["sum"], 1.0, group["eps"])


def _rmsprop(group: Mapping[str, Any], state: Mapping[str, Any]) -> Taken:
    # It does not correct its average for the zero that it began with. Here the denominator is the
    # corrected one, which compares with a gradient, and the factor undoes it.
    scale = _over_root(1 - group["alpha"] ** _count(state))
    factor = rate_of(group) / (1 - group["momentum"]) * scale
    return Taken(factor, state["square_avg"], scale, group["eps"] * scale)


def _over_root(correction: Any) -> Any:
    """1/√correction; infinite before the first step, which a scaler has the optimizer skip."""
    return correction**-0.5 if isinstance(correction, Tensor) or correction else math.inf


def _count(state: Mapping[str, Any]) -> Any:
    return _number(state["step"])


def _number(held: Any) -> Any:
    """A number that an optimizer keeps in a tensor; the tensor itself if it is on the device."""
    return held if isinstance(held, Tensor) and held.device.type != "cpu" else float(held)


def _choose(condition: bool | Tensor, yes: Any, no: Any) -> Any:
    return torch.where(condition, yes, no) if isinstance(condition, Tensor) else yes


def _algorithm(optimizer: type[Optimizer]) -> Any:
    """The function that does the step, without hooks: subclasses that keep it step alike."""
    return inspect.unwrap(optimizer.step)


_BY_CLASS: dict[type[Optimizer], StepSize] = {
    torch.optim.SGD: _sgd,
    torch.optim.Adam: _adam,
    torch.optim.AdamW: _adam,
    torch.optim.NAdam: _nadam,
    torch.optim.RAdam: _radam,
    torch.optim.Adamax: _adamax,
    torch.optim.Adagrad: _adagrad,
    torch.optim.RMSprop: _rmsprop,
}
_BY_ALGORITHM = {_algorithm(kind): step_size for kind, step_size in _BY_CLASS.items()}

KNOWN = ", ".join(kind.__name__ for kind in _BY_CLASS)
"""The optimizers in the table, for messages."""


def step_size_of(optimizer: Optimizer) -> StepSize | None:
    """How to read the step that this optimizer takes; None where it is not known."""
    return _BY_ALGORITHM.get(_algorithm(type(optimizer)))


def unbounded(optimizer: Optimizer) -> str:
    """Why the step of an optimizer in the table has no bound; empty if it has one."""
    for group in optimizer.param_groups:
        if group.get("centered"):
            # It divides by the spread of the gradient, which is 0 where the gradient stands still,
            # as it does at a penalized minimum.
            return "centered=True divides by a spread that vanishes at the minimum"
        if group.get("momentum", 0) >= 1:
            return f"momentum={group['momentum']!r} adds up gradients without end"
    return ""


def is_per_element(optimizer: Optimizer) -> bool:
    """Whether the step differs from element to element."""
    return step_size_of(optimizer) is not _sgd


def bounded(step: Step | Taken, regularizer: Regularizer, w: Tensor) -> Any:
    """The step as a number or tensor, with a floor of Ω's pull / SLACK under the denominator."""
    denominator = step.denominator
    if denominator is None:
        return step.factor
    floored = denominator.maximum(regularizer.pull(w) / SLACK)
    return step.factor / floored.clamp(min=torch.finfo(floored.dtype).tiny)
