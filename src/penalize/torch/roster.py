"""Who a parameter is: its name, ties and role, in the models that are alive."""

from __future__ import annotations

import gc
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple, TypeVar

from torch import Tensor, nn
from torch.optim import Optimizer

from penalize.errors import ModelError
from penalize.parameters import Role
from penalize.torch.parameters import read

T = TypeVar("T")


class Who(NamedTuple):
    """One parameter that an optimizer could step."""

    name: str
    aliases: tuple[str, ...]
    role: Role


def alive(kind: type[T]) -> list[T]:
    """Every object of a type, oldest first. A script is not asked what it calls its model."""
    # By its type, not isinstance: that asks the object, and some answer by importing things.
    return [thing for thing in gc.get_objects() if issubclass(type(thing), kind)]


def holding(parameters: Iterable[Tensor]) -> list[nn.Module]:
    """The outermost modules that hold these, the one that holds the most first."""
    missing = {id(p) for p in parameters}
    modules = alive(nn.Module)
    inner = {child for module in modules for child in module.children()}
    held = {
        module: missing.intersection(id(p) for p in module.parameters())
        for module in modules
        if module not in inner
    }
    found = []
    for module in sorted(held, key=lambda module: -len(held[module])):
        if held[module] & missing:  # else it holds the parts of another one, as a list may
            found.append(module)
            missing -= held[module]
    return found


def optimizers_of(members: Collection[int], stepped: Iterable[Optimizer]) -> list[Optimizer]:
    """Those that stepped, and those that hold any of these trainable parameters.

    None if none stepped: then there was a loss only, and of optimizers nothing can be said.
    """
    found = list(stepped)
    for optimizer in alive(Optimizer) if found else []:
        held = stepped_by([optimizer])
        if optimizer not in found and any(p.requires_grad and id(p) in members for p in held):
            found.append(optimizer)
    return found


def stepped_by(optimizers: Iterable[Optimizer]) -> list[Tensor]:
    """Their parameters."""
    return [p for o in optimizers for group in o.param_groups for p in group["params"]]


def roster(models: Sequence[nn.Module], optimizers: Iterable[Optimizer] = ()) -> dict[int, Who]:
    """Each parameter of some models by its identity; named with its model where there are more.

    What optimizers step beside has no name but its number there.
    """
    found: dict[int, Who] = {}
    for model, title in zip(models, _titles(models), strict=True):
        for key, who in _members(model).items():
            aliases = tuple(title + alias for alias in who.aliases)
            found.setdefault(key, Who(title + who.name, aliases, who.role))
    for optimizer in optimizers:
        for i, p in enumerate(stepped_by([optimizer])):
            name = f"parameter {i} of {type(optimizer).__name__}"
            found.setdefault(id(p), Who(name, (), Role.OTHER))
    return found


def _titles(models: Sequence[nn.Module]) -> list[str]:
    if len(models) == 1:
        return [""]
    kinds = [type(model).__name__ for model in models]
    return [
        f"{kind}{kinds[:i].count(kind) + 1 if kinds.count(kind) > 1 else ''}."
        for i, kind in enumerate(kinds)
    ]


def _members(model: nn.Module) -> dict[int, Who]:
    found: dict[int, Who] = {}
    try:
        records = read(model)
    except ModelError:  # sharded or scripted: nothing can be planned, and names are all there is
        records = []
    for record, binding in records:
        parameters = binding.parameters()
        for i, p in enumerate(parameters):
            name = record.name if len(parameters) == 1 else f"{record.name} (part {i})"
            role = record.role if not binding.effective or p.ndim > 1 else Role.OTHER
            found.setdefault(id(p), Who(name, record.aliases, role))
    for name, p in model.named_parameters():
        found.setdefault(id(p), Who(name, (), Role.OTHER))
    return found
