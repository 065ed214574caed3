"""The proximal step that a PyTorch optimizer really took; see :mod:`penalize.steps`.

Each function reads the state after the update.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from penalize import steps
from penalize.backends import torch as xp
from penalize.steps import Step, Taken
from penalize.torch.model.targets import Live, Target, joined_in, weight_in

StepSize = Callable[[Mapping[str, Any], Mapping[str, Any]], Taken]
"""(param group, state of the parameter) → its step."""


def rate_of(group: Mapping[str, Any]) -> float | Tensor:
    """The learning rate: a number, or a tensor without axes."""
    lr: float | Tensor = group["lr"]
    return lr.reshape(()) if isinstance(lr, Tensor) else lr


def _sgd(group: Mapping[str, Any], state: Mapping[str, Any]) -> Taken:
    return steps.sgd(rate_of(group), group["momentum"], group["dampening"])


# A capturable optimizer counts its steps on the device. There the formulas are of tensors, so that
# nothing waits for it.


def _adam(group: Mapping[str, Any], state: Mapping[str, Any]) -> Taken:
    second = state["max_exp_avg_sq"] if group["amsgrad"] else state["exp_avg_sq"]
    rate, correction = rate_of(group), 1 - group["betas"][1] ** _count(state)
    if isinstance(rate, Tensor) or isinstance(correction, Tensor):
        return steps.adam(rate, second, correction=correction, eps=group["eps"])
    return _adams_numbers(rate, correction, group["eps"])._replace(second=second)


@lru_cache(maxsize=16)
def _adams_numbers(rate: float, correction: float, eps: float) -> Taken:
    """The numbers of Adam's step, which are those of thousands of weights."""
    return steps.adam(rate, None, correction=correction, eps=eps)


def _nadam(group: Mapping[str, Any], state: Mapping[str, Any]) -> Taken:
    count = _count(state)
    return steps.nadam(
        rate_of(group),
        state["exp_avg_sq"],
        betas=group["betas"],
        count=count,
        momenta=steps.nadam_momentum(group["betas"][0], count, group["momentum_decay"]),
        product=_number(state["mu_product"]),
        eps=group["eps"],
    )


def _radam(group: Mapping[str, Any], state: Mapping[str, Any]) -> Taken:
    decay, count = group["betas"][1], _count(state)
    rate, second = rate_of(group), state["exp_avg_sq"]
    return steps.radam(rate, second, decay=decay, count=count, eps=group["eps"], xp=xp)


def _adamax(group: Mapping[str, Any], state: Mapping[str, Any]) -> Taken:
    return steps.adamax(rate_of(group), state["exp_inf"])  # with eps in it


def _adagrad(group: Mapping[str, Any], state: Mapping[str, Any]) -> Taken:
    decay, count = group["lr_decay"], _count(state)
    return steps.adagrad(
        rate_of(group), state["sum"], count=count, rate_decay=decay, eps=group["eps"]
    )


def _rmsprop(group: Mapping[str, Any], state: Mapping[str, Any]) -> Taken:
    return steps.rmsprop(
        rate_of(group),
        state["square_avg"],
        correction=1 - group["alpha"] ** _count(state),
        momentum=group["momentum"],
        eps=group["eps"],
    )


def _count(state: Mapping[str, Any]) -> Any:
    return _number(state["step"])


def _number(held: Any) -> Any:
    """A number that an optimizer keeps in a tensor; the tensor itself if it is on the device."""
    return held if isinstance(held, Tensor) and held.device.type != "cpu" else float(held)


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


def joined_taken(target: Target | Live, taken: Sequence[Taken]) -> Taken | None:
    """The step of what spans parameters, where all of these took it by the same numbers."""
    first = taken[0]
    seconds = [each.second for each in taken if each.second is not None]
    if any(isinstance(x, Tensor) for each in taken for x in each._replace(second=None)):
        return None  # to compare them would wait for the device
    alike = all(each._replace(second=None) == first._replace(second=None) for each in taken)
    if not alike or len(seconds) not in (0, len(taken)):
        return None
    return first._replace(second=weight_in(target, seconds) if seconds else None)


def joined_step(target: Target | Live, ws: Sequence[Tensor], taken: Sequence[Step]) -> Step:
    """The step of what may span several parameters, each of which has taken its own.

    Factors are one number if they are for all, else one for each element, as denominators are.
    """
    first = taken[0]
    if joined_in(target) is None:
        return first
    factor: Any = first.factor
    if any(isinstance(s.factor, Tensor) or s.factor != factor for s in taken):
        own = [torch.ones_like(w) * s.factor for w, s in zip(ws, taken, strict=True)]
        factor = weight_in(target, own)
    denominators = [s.denominator for s in taken if s.denominator is not None]
    return Step(factor, weight_in(target, denominators) if denominators else None)


def why_not_bounded(optimizer: Optimizer) -> str:
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
