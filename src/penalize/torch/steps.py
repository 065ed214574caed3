"""The proximal step that a PyTorch optimizer really took; see :mod:`penalize.steps`.

Each function reads the state after the update.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from penalize.regularizers.base import Regularizer
from penalize.steps import SLACK, Step

StepSize = Callable[[Mapping[str, Any], Mapping[str, Any]], Step]
"""(param group, state of the parameter) → its step."""


def rate_of(group: Mapping[str, Any]) -> float | Tensor:
    """The learning rate: a number, or a tensor without axes."""
    lr: float | Tensor = group["lr"]
    return lr.reshape(()) if isinstance(lr, Tensor) else lr


def _sgd(group: Mapping[str, Any], state: Mapping[str, Any]) -> Step:
    momentum = group["momentum"]
    if not momentum:
        return Step(rate_of(group))
    return Step(rate_of(group) * (1 - group["dampening"]) / (1 - momentum))


# A capturable optimizer counts its steps on the device. There the formulas below are of tensors, so
# that nothing waits for it.


def _adam(group: Mapping[str, Any], state: Mapping[str, Any]) -> Step:
    second = state["max_exp_avg_sq"] if group["amsgrad"] else state["exp_avg_sq"]
    correction = 1 - group["betas"][1] ** _count(state)
    return Step(rate_of(group), (second / correction).sqrt() + group["eps"])


def _nadam(group: Mapping[str, Any], state: Mapping[str, Any]) -> Step:
    beta1, beta2 = group["betas"]
    count = _count(state)
    mu = beta1 * (1 - 0.5 * 0.96 ** (count * group["momentum_decay"]))
    mu_next = beta1 * (1 - 0.5 * 0.96 ** ((count + 1) * group["momentum_decay"]))
    product = _number(state["mu_product"])
    # A constant gradient g has the first moment (1 − β₁ᵗ)·g.
    from_momentum = mu_next / (1 - product * mu_next) * (1 - beta1**count)
    factor = rate_of(group) * ((1 - mu) / (1 - product) + from_momentum)
    return Step(factor, (state["exp_avg_sq"] / (1 - beta2**count)).sqrt() + group["eps"])


def _radam(group: Mapping[str, Any], state: Mapping[str, Any]) -> Step:
    beta2 = group["betas"][1]
    count = _count(state)
    correction = 1 - beta2**count
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * count * beta2**count / correction
    rectified = (length - 4) * (length - 2) * longest
    rectified = rectified / ((longest - 4) * (longest - 2) * length)
    adaptive = length > 5
    if adaptive is False:
        return Step(rate_of(group))  # in its first steps it takes those of momentum alone
    factor = rate_of(group) * _choose(adaptive, abs(rectified) ** 0.5, 1.0)
    denominator = (state["exp_avg_sq"].sqrt() + group["eps"]) / correction**0.5
    return Step(factor, _choose(adaptive, denominator, torch.ones_like(denominator)))


def _adamax(group: Mapping[str, Any], state: Mapping[str, Any]) -> Step:
    return Step(rate_of(group), state["exp_inf"])


def _adagrad(group: Mapping[str, Any], state: Mapping[str, Any]) -> Step:
    rate = rate_of(group) / (1 + (_count(state) - 1) * group["lr_decay"])
    return Step(rate, state["sum"].sqrt() + group["eps"])


def _rmsprop(group: Mapping[str, Any], state: Mapping[str, Any]) -> Step:
    # It does not correct its average for the zero that it began with. Here the denominator is the
    # corrected one, which compares with a gradient, and the factor undoes it.
    root = (1 - group["alpha"] ** _count(state)) ** 0.5
    factor = rate_of(group) / (1 - group["momentum"]) / root
    return Step(factor, (state["square_avg"].sqrt() + group["eps"]) / root)


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


def stepped_by(optimizer: Optimizer) -> Optimizer:
    """The optimizer itself, or the one that ZeroRedundancyOptimizer shards."""
    shards = any(kind.__name__ == "ZeroRedundancyOptimizer" for kind in type(optimizer).__mro__)
    inner: Optimizer = optimizer.optim if shards else optimizer  # type: ignore[attr-defined]
    return inner


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


def bounded(step: Step, regularizer: Regularizer, w: Tensor) -> Any:
    """The step as a number or tensor, with a floor of Ω's pull / SLACK under the denominator."""
    if step.denominator is None:
        return step.factor
    floored = step.denominator.maximum(regularizer.pull(w) / SLACK)
    return step.factor / floored.clamp(min=torch.finfo(floored.dtype).tiny)
