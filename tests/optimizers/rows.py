"""The optimizers: PyTorch's own list of configurations, and what its list leaves out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import schedulefree
import torch
from torch import Tensor, distributed, nn
from torch.optim import SGD, Adam, AdamW, Muon, Optimizer, RMSprop
from torch.testing._internal.common_optimizers import OptimizerInfo, optim_db
from transformers import Adafactor

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it imports what PyTorch deprecates
    from torch.distributed.optim import ZeroRedundancyOptimizer

Build = Callable[[Sequence[nn.Parameter]], list[Optimizer]]

IMPLEMENTATIONS: dict[str, dict[str, bool]] = {
    "single-tensor": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
    "differentiable": {"differentiable": True},
}
"""How PyTorch is asked for each of its implementations of one optimizer."""


@dataclass(frozen=True, eq=False)
class Row:
    """One optimizer with its settings, in one implementation."""

    optimizer: str
    kwargs: Mapping[str, Any]
    build: Build
    implementation: str = ""
    """One of IMPLEMENTATIONS; empty where there is only one."""

    sparse: bool = False
    """Whether it takes sparse gradients and nothing else."""

    closure: bool = False
    """Whether ``step`` needs a closure."""

    in_backward: bool = False
    """Whether each parameter has an optimizer of its own, stepped during backward."""

    origin: type[Optimizer] = Optimizer
    """The class of torch.optim whose algorithm it is; Optimizer where it is of another house."""

    @property
    def settings(self) -> str:
        """As they are written in a call."""
        return ", ".join(f"{k}={_short(v)}" for k, v in self.kwargs.items()) or "default"

    @property
    def name(self) -> str:
        """For the ids of tests."""
        return ", ".join(filter(None, (self.optimizer, self.settings, self.implementation)))

    @property
    def sign(self) -> int:
        """−1 where the objective is maximized."""
        return -1 if self.kwargs.get("maximize") else 1

    @property
    def needs_cuda(self) -> bool:
        """Capturable steps exist on accelerators only; differentiable ones are never reached."""
        return bool(self.kwargs.get("capturable")) and self.implementation != "differentiable"

    @property
    def bound(self) -> float:
        """How far the weights may be from their reference, relative to the largest.

        Settings in float32 tensors are multiplied by strengths in float32.
        """
        return 1e-6 if "tensor(" in self.settings else 1e-9

    @cached_property
    def decays(self) -> bool:
        """Whether the optimizer decays weights itself, by these settings or by default."""
        (optimizer, *_) = self.build([nn.Parameter(torch.zeros(2, 2))])
        return any(group.get("weight_decay") for group in optimizer.param_groups)


def _short(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"tensor({value.item():g})"
    if isinstance(value, tuple):
        return f"({', '.join(map(_short, value))})"
    return f"{value:g}" if isinstance(value, float) else str(value)


def builder(cls: type[Optimizer], kwargs: Mapping[str, Any]) -> Build:
    """One optimizer for all parameters. It gets copies of tensors, which a step may change."""

    def build(parameters: Sequence[nn.Parameter]) -> list[Optimizer]:
        own = {k: v.clone() if isinstance(v, Tensor) else v for k, v in kwargs.items()}
        return [cls(list(parameters), **own)]

    return build


# --- PyTorch's list -------------------------------------------------------------------------


def of_pytorch() -> Iterator[Row]:
    """Every configuration that PyTorch tests its optimizers with, in every implementation."""
    for info in optim_db:
        # The list for CUDA is the one for the CPU and capturable ones.
        inputs = [given.kwargs for given in info.optim_inputs_func(device="cuda")]
        for implementation, flags in _implementations(info):
            yield from (
                _row(info, kwargs, implementation, flags)
                for kwargs in inputs
                if _exists(info.optim_cls, kwargs, flags)
            )


def _implementations(info: OptimizerInfo) -> list[tuple[str, dict[str, bool]]]:
    if "foreach" not in info.supported_impls:
        return [("", {})]
    wanted = ("single-tensor", *info.supported_impls)
    return [(name, flags) for name, flags in IMPLEMENTATIONS.items() if name in wanted]


def _row(
    info: OptimizerInfo, kwargs: dict[str, Any], implementation: str, flags: dict[str, bool]
) -> Row:
    return Row(
        info.optim_cls.__name__,
        kwargs,
        builder(info.optim_cls, {**kwargs, **flags}),
        implementation,
        sparse=info.only_supports_sparse_grads,
        closure=info.step_requires_closure,
        origin=info.optim_cls,
    )


def _exists(cls: type[Optimizer], kwargs: dict[str, Any], flags: dict[str, bool]) -> bool:
    """PyTorch itself refuses some pairs, such as a tensor for lr with foreach."""
    try:
        builder(cls, {**kwargs, **flags})([nn.Parameter(torch.zeros(2, 2))])
    except (ValueError, RuntimeError):
        return False
    return True


# --- what the list leaves out ---------------------------------------------------------------


class SuperSGD(SGD):
    """A subclass as users write them: its step calls its parent's."""

    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


class SuperAdamW(AdamW):
    """Another."""

    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


def _zero(parameters: Sequence[nn.Parameter], inner: type[Optimizer], **kwargs: Any) -> Any:
    """ZeRO among one process, which needs no network."""
    if not distributed.is_initialized():
        store = distributed.HashStore()
        distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    return [ZeroRedundancyOptimizer(list(parameters), optimizer_class=inner, **kwargs)]


def _schedule_free(parameters: Sequence[nn.Parameter], cls: Any, **kwargs: Any) -> Any:
    optimizer = cls(list(parameters), **kwargs)
    optimizer.train()
    return [optimizer]


def _one_each(parameters: Sequence[nn.Parameter], cls: Any, **kwargs: Any) -> Any:
    return [cls([parameter], **kwargs) for parameter in parameters]


def _grouped(parameters: Sequence[nn.Parameter], cls: Any, **kwargs: Any) -> Any:
    """Each parameter in a group of its own, with the settings at its place in the tuples."""
    groups = [
        {"params": [parameter], **{name: values[i % 2] for name, values in kwargs.items()}}
        for i, parameter in enumerate(parameters)
    ]
    return [cls(groups)]


MOMENTUM = {"lr": 0.05, "momentum": 0.9}
NO_DECAY = {"lr": 0.05, "weight_decay": 0.0}


def others() -> Iterator[Row]:
    """Settings that are not in the list, and other loops, wrappers and subclasses."""
    for cls, kwargs in (
        (SGD, {"momentum": 1.0}),
        (RMSprop, {"momentum": 1.0}),
        (RMSprop, {"momentum": 0.9, "alpha": 0.9}),
        (Adam, {"lr": torch.tensor(0.01)}),
        (Adam, {"betas": (torch.tensor([[[0.9]]]), torch.tensor([[0.99]]))}),
        (AdamW, NO_DECAY),
        (Muon, NO_DECAY),
    ):
        yield Row(cls.__name__, kwargs, builder(cls, kwargs), origin=cls)
    for cls, kwargs in (
        (SGD, {"lr": (0.1, 0.01), "momentum": (0.9, 0.5)}),
        (Adam, {"lr": (0.1, 0.01), "betas": ((0.9, 0.999), (0.5, 0.9))}),
    ):
        name = f"{cls.__name__}, param groups of different settings"
        yield Row(name, kwargs, partial(_grouped, cls=cls, **kwargs), origin=cls)
    for cls, kwargs in ((SGD, MOMENTUM), (Adam, {"lr": 0.05}), (AdamW, NO_DECAY)):
        name = f"{cls.__name__}, one per parameter, stepped in backward"
        build = partial(_one_each, cls=cls, **kwargs)
        yield Row(name, kwargs, build, in_backward=True, origin=cls)
    for cls, kwargs in ((SuperSGD, MOMENTUM), (SuperAdamW, NO_DECAY)):
        name = f"a subclass of {cls.__base__.__name__} whose `step` calls `super().step()`"
        yield Row(name, kwargs, builder(cls, kwargs), origin=cls)
    for cls, kwargs in ((SGD, MOMENTUM), (AdamW, NO_DECAY)):
        name = f"ZeroRedundancyOptimizer of {cls.__name__}"
        build = partial(_zero, inner=cls, **kwargs)
        yield Row(name, kwargs, build, origin=ZeroRedundancyOptimizer)


def of_other_houses() -> Iterator[Row]:
    """Optimizers that are not PyTorch's."""
    for cls in (
        schedulefree.SGDScheduleFree,
        schedulefree.AdamWScheduleFree,
        schedulefree.RAdamScheduleFree,
    ):
        for kwargs in ({"lr": 0.05}, {"lr": 0.05, "weight_decay": 0.1}):
            name = f"schedulefree.{cls.__name__}"
            yield Row(name, kwargs, partial(_schedule_free, cls=cls, **kwargs))
    fixed = {"lr": 0.05, "relative_step": False, "scale_parameter": False}
    for kwargs in ({}, fixed, {**fixed, "weight_decay": 0.1}):
        yield Row("transformers.Adafactor", kwargs, builder(Adafactor, kwargs))


ROWS = [*of_pytorch(), *others(), *of_other_houses()]


def _crossing(rows: Sequence[Row]) -> Iterator[Row]:
    """Of each optimizer all settings in one implementation, and one setting in all of them.

    What a plan does, it does before and after a step, whatever runs the step, and by the settings;
    so a cell that is left out repeats two that are here. Tensors among the settings reach into the
    implementations: those rows stay.
    """
    known: dict[str, Row] = {}
    for row in rows:
        first = known.setdefault(row.optimizer, row)
        if (
            row.implementation == first.implementation
            or row.settings == first.settings
            or "tensor(" in row.settings
        ):
            yield row


CROSSING = [*_crossing(ROWS)]
"""Those that `make test` measures; `make test-all` measures the others too."""
