"""The hook on a module, what it leaves for the loss, and whether a forward is one that counts."""

from __future__ import annotations

import sys
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from penalize.errors import ActivityError, NotScriptedError
from penalize.torch.outputs.rules import Activity


class OutputTerm:
    """One term, and the one before it. In a chain, unlike in a list, torch.compile traces it
    without compiling anew for each length.
    """

    def __init__(self, name: str, value: Tensor | None, before: OutputTerm | None) -> None:
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
        is_tracing = torch._C._get_tracing_state() is not None  # what is traced has no hooks
        if owner is None or is_tracing:
            return
        self.called = True
        if torch.is_grad_enabled() and (module.training or owner.in_eval):
            owner.take(self, module, output)

    @property
    def __name__(self) -> str:
        """What TorchScript asks of each hook, in order to compile it."""
        raise NotScriptedError(self.activity.name)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "owner": None, "called": False, "last": None}


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
