"""How a plan reaches a live tensor: through the module that holds it, never by the tensor itself.

A module's attribute stays right when the tensor is replaced (``to_empty``, ``assign=True``,
``fully_shard``); the tensor's identity does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from penalize.errors import ModelError


class Binding(Protocol):
    """One weight of a live model."""

    effective: bool
    """Whether the weight is computed from other parameters, so that it cannot itself be set."""

    def read(self) -> Tensor:
        """The weight, differentiable with respect to :meth:`parameters`."""

    def parameters(self) -> tuple[nn.Parameter, ...]:
        """What an optimizer steps to change the weight."""

    def shape(self) -> tuple[int, ...] | None:
        """None while the parameter is lazy."""


def trainable(binding: Binding) -> bool:
    """Whether any parameter behind the weight requires a gradient."""
    return any(p.requires_grad for p in binding.parameters())


@dataclass(frozen=True)
class Plain:
    """A parameter that is the weight."""

    module: nn.Module
    name: str
    effective = False

    def read(self) -> Tensor:
        parameter: Tensor = getattr(self.module, self.name)
        if isinstance(parameter, UninitializedParameter):
            raise ModelError(
                f"{self.name!r} of {type(self.module).__name__} is lazy and has no values yet",
                "run one batch through the model first",
            )
        return parameter

    def parameters(self) -> tuple[nn.Parameter, ...]:
        return (getattr(self.module, self.name),)

    def shape(self) -> tuple[int, ...] | None:
        parameter = getattr(self.module, self.name)
        return None if isinstance(parameter, UninitializedParameter) else tuple(parameter.shape)


@dataclass(frozen=True)
class Effective:
    """A weight that is computed from parameters: a parametrization, a mask, an old-style hook."""

    compute: Callable[[], Tensor]
    sources: Callable[[], tuple[nn.Parameter, ...]]
    effective = True

    def read(self) -> Tensor:
        return self.compute()

    def parameters(self) -> tuple[nn.Parameter, ...]:
        return self.sources()

    def shape(self) -> tuple[int, ...] | None:
        with torch.no_grad():
            return tuple(self.compute().shape)


def bindings_of(module: nn.Module) -> Iterator[tuple[str, Binding, str]]:
    """Each weight that a module itself holds: its name, its binding, and a note."""
    hidden: set[str] = set()
    if parametrize.is_parametrized(module):
        parametrizations = cast(nn.ModuleDict, module.parametrizations)
        for name, chain in parametrizations.items():
            yield name, _parametrized(chain), _made_of(chain)
    for name, compute in _recomputed(module):
        sources = [f"{name}{end}" for end in ("_g", "_v", "_orig")]
        sources = [source for source in sources if source in module._parameters]
        hidden.update(sources)
        yield name, _hooked(module, compute, sources), f"computed from {', '.join(sources)}"
    for name, parameter in module._parameters.items():
        if parameter is not None and name not in hidden:
            yield name, Plain(module, name), ""


def _made_of(chain: nn.Module) -> str:
    kinds = " of ".join(type(m).__name__.strip("_") for m in reversed(list(chain.children())))
    return f"effective weight ({kinds})"


def _parametrized(chain: nn.Module) -> Effective:
    def compute() -> Tensor:
        with _as_in_evaluation(chain):
            # Not through the module's attribute: under parametrize.cached() that would fill the
            # cache with a weight as we read it, perhaps without a graph.
            return cast(Tensor, chain())

    return Effective(compute, lambda: tuple(chain.parameters()))


@contextmanager
def _as_in_evaluation(chain: nn.Module) -> Iterator[None]:
    """Reading must change nothing: in training mode spectral norm would take a power iteration."""
    modes = [(module, module.training) for module in chain.modules()]
    chain.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _recomputed(module: nn.Module) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """Attributes that a hook computes before each forward: their names, and how it does it.

    Between steps such an attribute is stale, so it is computed anew for each reading.
    """
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            yield hook.name, partial(hook.compute_weight, module)
        elif isinstance(hook, SpectralNorm):
            yield hook.name, partial(hook.compute_weight, module, do_power_iteration=False)
        elif isinstance(hook, BasePruningMethod):
            yield hook._tensor_name, partial(hook.apply_mask, module)


def _hooked(module: nn.Module, compute: Callable[[], Tensor], sources: list[str]) -> Effective:
    return Effective(compute, lambda: tuple(getattr(module, source) for source in sources))
