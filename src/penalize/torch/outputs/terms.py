"""The hook on a module, the penalty of one output, and whether a forward is one that counts."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from penalize.errors import ActivityError
from penalize.regularizers.base import Regularizer
from penalize.torch.outputs.rules import Activity


class Term:
    """One term, and the one before it. In a chain, unlike in a list, torch.compile traces it
    without compiling anew for each length.
    """

    def __init__(self, name: str, value: Tensor | None, before: Term | None) -> None:
        self.name, self.value, self.before = name, value, before


class Owner(Protocol):
    """Who collects the terms."""

    in_eval: bool
    """Whether modules in evaluation have a penalty as well."""

    def take(self, hook: Hook, module: nn.Module, output: Any) -> None:
        """A forward with gradients has had this output."""


class Hook:
    """What a module calls after its forward. A copy of it does nothing, unless the plan is copied
    along.
    """

    def __init__(self, activity: Activity) -> None:
        self.activity = activity
        self.owner: Owner | None = None
        self.called = False
        self.last: Tensor | None = None
        """The penalty of the last forward."""

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        owner = self.owner
        if owner is None:
            return
        self.called = True
        if torch.is_grad_enabled() and (module.training or owner.in_eval):
            owner.take(self, module, output)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "owner": None, "called": False, "last": None}


def floating(output: Any) -> list[Tensor]:
    """Every tensor in an output that a regularizer takes, or refuses with a sentence."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() or output.is_complex() else []
    parts = output.values() if isinstance(output, Mapping) else output
    if not isinstance(output, Mapping | tuple | list):
        return []
    return [tensor for part in parts for tensor in floating(part)]


def penalty_of(
    tensors: Sequence[Tensor], name: str, regularizer: Regularizer, output: Any
) -> Tensor:
    """Σ Ω(tensor)/batch."""
    total: Any = 0
    for tensor in tensors:
        if tensor.ndim == 0:
            raise ActivityError(
                f"{name!r} returned a tensor without axes, and the penalty on an output is divided "
                "by its batch, the first axis",
                "name the module before it",
            )
        total = total + regularizer(tensor) / max(tensor.shape[0], 1)
    if not tensors:
        raise ActivityError(
            f"{name!r} returned no floating-point tensor that could be penalized: it is a "
            f"{type(output).__name__}",
            "name another module; tensors are looked for in tuples, lists and dicts",
        )
    return total  # type: ignore[no-any-return]


def check_is_called_once(module: nn.Module, name: str) -> None:
    """Replicas see a part of the batch each, and each would count as a call."""
    if getattr(module, "_is_replica", False):
        raise ActivityError(
            f"the output of {name!r} is penalized, and nn.DataParallel calls its replicas, each "
            "with a part of the batch",
            "use DistributedDataParallel, or plan without activities",
        )


def check_was_counted(name: str) -> None:
    """Within a backward pass a forward runs again, after one that had a gradient, or had none."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "unpack_hook":  # of checkpoint(use_reentrant=False)
            return
        frame = frame.f_back
    raise ActivityError(
        f"the forward of {name!r}, whose output is penalized, ran without gradients and is run "
        "again within the backward pass, where its penalty can no longer enter the loss",
        "use torch.utils.checkpoint with use_reentrant=False",
    )
