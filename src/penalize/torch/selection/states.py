"""The state of a model: copied, set, and put back; and what of it is penalized."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from penalize.torch.plan import Plan


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of what is trained, by name."""
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all that a model is: parameters and buffers, such as running statistics."""
    held = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in held}


def set_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a model what :func:`state_of` has found, or a part of it."""
    held = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    with torch.no_grad():
        for name, value in state.items():
            held[name].copy_(value)


@contextmanager
def kept(model: nn.Module) -> Iterator[None]:
    """Parameters, buffers, gradients and modes are put back at the end."""
    state = state_of(model)
    gradients = [(p, p.grad) for p in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        set_state(model, state)
        for p, gradient in gradients:
            p.grad = gradient
        for module, training in modes:
            module.training = training


def penalized_names(plan: Plan) -> list[str]:
    """The names of what is penalized and trained, in the plan's order, as the model calls it."""
    names = {id(p): name for name, p in plan.model.named_parameters()}
    found = [names[id(p)] for t in plan.targets() for p in t.parameters if p.requires_grad]
    return list(dict.fromkeys(found))
