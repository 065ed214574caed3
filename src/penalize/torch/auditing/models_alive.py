"""Who a parameter is: its name, ties and role, in the models that are alive."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.optim import Optimizer

from penalize.alive import alive
from penalize.errors import ModelError
from penalize.parameters import Role
from penalize.torch.model.parameters import read


class Who(NamedTuple):
    """One parameter that an optimizer could step."""

    name: str
    aliases: tuple[str, ...]
    role: Role


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
    """The optimizers that stepped, and those that hold any of these trainable parameters.

    None if none stepped: then there was a loss only, and of optimizers nothing can be said.
    """
    holding = [
        optimizer
        for optimizer in alive(Optimizer)
        if any(p.requires_grad and id(p) in members for p in stepped_by([optimizer]))
    ]
    found = list(stepped)
    return with_idle(found, holding) if found else []


def with_idle(stepped: Sequence[Optimizer], others: Iterable[Optimizer]) -> list[Optimizer]:
    """Optimizers that stepped, and others that wrap none of these, as shared groups tell."""
    found = list(stepped)
    for optimizer in others:
        if optimizer not in found and not shares_groups(optimizer, found):
            found.append(optimizer)
    return found


def shares_groups(optimizer: Optimizer, others: Iterable[Optimizer]) -> bool:
    """Whether it has a param group of another one, as optimizers that wrap another one have."""
    mine = {id(group) for group in optimizer.param_groups}
    return any(id(g) in mine for o in others if o is not optimizer for g in o.param_groups)


def stepped_by(optimizers: Iterable[Optimizer]) -> list[Tensor]:
    """The parameters of optimizers; none of one whose ``__init__`` raised."""
    groups = [group for o in optimizers for group in getattr(o, "param_groups", ())]
    return [p for group in groups for p in group["params"]]


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
