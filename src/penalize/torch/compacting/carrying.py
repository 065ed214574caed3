"""Carrying over: what goes with a model that is cut: its optimizer, and biases that it gets."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.optim import Optimizer

from penalize.errors import ModelError
from penalize.torch.compacting.cutting import Cut, shrunk


def with_biases(model: nn.Module) -> nn.Module:
    """A copy whose linear and convolutional layers all have biases."""
    found = copy.deepcopy(model)
    for module in found.modules():
        if isinstance(module, nn.Linear | _ConvNd) and module.bias is None:
            count = module.out_features if isinstance(module, nn.Linear) else module.out_channels
            module.bias = nn.Parameter(module.weight.new_zeros(int(count)))
    return found


def without_idle_biases(model: nn.Module, smaller: nn.Module, what: Cut) -> None:
    """Take back the biases that a model was given and that hold nothing."""
    modules = dict(model.named_modules())
    for path, module in smaller.named_modules():
        old = modules[path]
        was_given = isinstance(old, nn.Linear | _ConvNd) and old.bias is None
        if was_given and f"{path}.bias".lstrip(".") not in what.offsets:
            module.bias = None


def carried_over(
    optimizer: Optimizer, model: nn.Module, smaller: nn.Module, what: Cut
) -> Optimizer:
    """An optimizer of the same class and settings for the smaller model, its state cut along.

    Biases that the smaller model was given go where the weights beside them are.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    new = dict(smaller.named_parameters())
    groups = []
    for group in optimizer.param_groups:
        strangers = sum(id(p) not in names for p in group["params"])
        if strangers:
            raise ModelError(
                f"the optimizer holds {strangers} parameters that the model does not have",
                "give compact an optimizer of this model alone",
            )
        mine = [names[id(p)] for p in group["params"]]
        made = {f"{name.removesuffix('weight')}bias" for name in mine} & new.keys()
        mine += sorted(made - {*names.values()})
        groups.append({**group, "params": [new[name] for name in mine]})
    kind: Any = type(optimizer)
    found: Optimizer = kind(groups)
    for p, state in optimizer.state.items():
        name = names[id(p)]
        found.state[new[name]] = {key: _cut(name, p, x, what) for key, x in state.items()}
    return found


def _cut(name: str, p: Tensor, x: Any, what: Cut) -> Any:
    """A part of an optimizer's state: cut where it is laid out as its parameter is."""
    if not isinstance(x, Tensor):
        return copy.deepcopy(x)
    with torch.no_grad():
        return shrunk(name, x, what).clone() if x.shape == p.shape else x.clone()
