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
from torch.nn.parameter import UninitializedParameter, is_lazy
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from penalize.backends.torch import undisturbed
from penalize.errors import ModelError
from penalize.torch.model.sharding import gathered, lasting


class Binding(Protocol):
    """One weight of a live model."""

    @property
    def module(self) -> nn.Module:
        """What holds it."""

    @property
    def name(self) -> str:
        """What it is called there."""

    effective: bool
    """Whether the weight is computed from other parameters, so that it cannot itself be set."""

    def read(self) -> Tensor:
        """The weight, differentiable with respect to :meth:`parameters`."""

    def parameters(self) -> tuple[nn.Parameter, ...]:
        """What an optimizer steps to change the weight."""

    def shape(self) -> tuple[int, ...] | None:
        """None while the parameter is lazy."""


def trainable(binding: Binding) -> bool:
    """Whether any parameter behind the weight requires a gradient.

    What ``torch.func`` puts in the place of a parameter is none, and never frozen.
    """
    return any(p.requires_grad or not isinstance(p, nn.Parameter) for p in binding.parameters())


def shape_of(held: Tensor) -> tuple[int, ...] | None:
    """Of what a module holds; None while it is lazy."""
    return None if is_lazy(held) else tuple(held.shape)


@dataclass(frozen=True, slots=True)
class Direct:
    """A parameter that is the weight."""

    module: nn.Module
    name: str
    effective = False

    def _held(self) -> Tensor:
        held = self.module._parameters.get(self.name)  # as getattr finds it, and faster
        if held is None:
            held = getattr(self.module, self.name, None)
        if not isinstance(held, Tensor):
            raise _gone(self.module, self.name, "a parameter")
        return lasting(self.module, self.name, held)

    def read(self) -> Tensor:
        held = self._held()
        if isinstance(held, UninitializedParameter):  # as torch.compile can trace it
            raise ModelError(
                f"{self.name!r} of {type(self.module).__name__} is lazy and has no values yet",
                "run one batch through the model first",
            )
        return held

    def parameters(self) -> tuple[nn.Parameter, ...]:
        return (cast(nn.Parameter, self._held()),)

    def shape(self) -> tuple[int, ...] | None:
        return shape_of(self._held())


@dataclass(frozen=True)
class Parametrized:
    """A weight that a chain of parametrizations computes."""

    module: nn.Module
    name: str
    effective = True

    def _chain(self) -> nn.Module:
        chains = self.module._modules.get("parametrizations")
        if not (isinstance(chains, nn.ModuleDict) and self.name in chains):
            raise _gone(self.module, self.name, "parametrized")
        return chains[self.name]

    def _sources(self) -> list[tuple[nn.Module, str]]:
        modules = self._chain().modules()
        return [(m, name) for m in modules for name, p in m._parameters.items() if p is not None]

    def _compute(self) -> Tensor:
        chain = self._chain()
        with _as_in_evaluation(chain):
            # Not through the module's attribute: under parametrize.cached() that would fill the
            # cache with a weight as we read it, perhaps without a graph.
            return cast(Tensor, chain())

    def read(self) -> Tensor:
        with gathered(self._sources()):
            return _undisturbed(self._compute, self.module)

    def parameters(self) -> tuple[nn.Parameter, ...]:
        return _parameters(self._sources())

    def shape(self) -> tuple[int, ...] | None:
        with torch.no_grad(), gathered(self._sources(), values=False):
            return tuple(self._compute().shape)


@dataclass(frozen=True)
class Recomputed:
    """A weight that a hook computes before each forward: a pruning mask, an old-style norm.

    Between steps the module's attribute is stale, so it is computed anew for each reading.
    """

    module: nn.Module
    name: str
    effective = True

    def _sources(self) -> list[tuple[nn.Module, str]]:
        names = _sources(self.module, self.name)
        if not names:
            raise _gone(self.module, self.name, "computed by a hook")
        return [(self.module, name) for name in names]

    def _compute(self) -> Tensor:
        for name, compute in _recomputed(self.module):
            if name == self.name:
                return compute()
        raise _gone(self.module, self.name, "computed by a hook")

    def read(self) -> Tensor:
        with gathered(self._sources()):
            return _undisturbed(self._compute, self.module)

    def parameters(self) -> tuple[nn.Parameter, ...]:
        return _parameters(self._sources())

    def shape(self) -> tuple[int, ...] | None:
        with torch.no_grad(), gathered(self._sources(), values=False):
            return tuple(self._compute().shape)


def _undisturbed(compute: Callable[[], Tensor], module: nn.Module) -> Tensor:
    """A weight as it is without autocast, which is the loop's, for its forward passes."""
    for parameter in module.parameters():
        return undisturbed(lambda _: compute(), parameter, differentiated=True)
    return compute()


def _parameters(sources: list[tuple[nn.Module, str]]) -> tuple[nn.Parameter, ...]:
    """What an optimizer steps, each once."""
    shown = [(module, name, module._parameters[name]) for module, name in sources]
    held = [lasting(module, name, p) for module, name, p in shown if p is not None]
    return tuple({id(p): cast(nn.Parameter, p) for p in held}.values())


def _gone(module: nn.Module, name: str, was: str) -> ModelError:
    return ModelError(
        f"{name!r} of {type(module).__name__} is no longer {was}",
        "detach(), and plan the model as it is now",
    )


def bindings_of(module: nn.Module) -> Iterator[tuple[str, Binding, str]]:
    """Each weight that a module itself holds: its name, its binding, and a note."""
    hidden: set[str] = set()
    chains = module.parametrizations if "parametrizations" in module._modules else None
    if isinstance(chains, nn.ModuleDict):
        for name, chain in chains.items():
            yield name, Parametrized(module, name), _made_of(chain)
    for name, _ in _recomputed(module) if module._forward_pre_hooks else ():
        sources = _sources(module, name)
        hidden.update(sources)
        yield name, Recomputed(module, name), f"computed from {', '.join(sources)}"
    for name, parameter in module._parameters.items():
        if parameter is not None and name not in hidden:
            yield name, Direct(module, name), _moved_by(module)


def _moved_by(module: nn.Module) -> str:
    """What a forward does to a parameter: differentiated before it, a penalty would fail."""
    renormed = isinstance(module, _EMBEDDINGS) and module.max_norm is not None
    return "max_norm writes to it in each forward: penalty() after that" if renormed else ""


_EMBEDDINGS = nn.Embedding, nn.EmbeddingBag


def _made_of(chain: nn.Module) -> str:
    kinds = " of ".join(type(m).__name__.strip("_") for m in reversed(list(chain.children())))
    return f"effective weight ({kinds})"


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
    """The attributes that hooks compute before each forward: their names, and how it is done."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            yield hook.name, partial(hook.compute_weight, module)
        elif isinstance(hook, SpectralNorm):
            yield hook.name, partial(hook.compute_weight, module, do_power_iteration=False)
        elif isinstance(hook, BasePruningMethod):
            yield hook._tensor_name, partial(hook.apply_mask, module)


def _sources(module: nn.Module, name: str) -> list[str]:
    """The parameters that such a hook computes the attribute from."""
    sources = (f"{name}{end}" for end in ("_g", "_v", "_orig"))
    return [source for source in sources if source in module._parameters]
