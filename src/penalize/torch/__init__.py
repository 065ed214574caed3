"""penalize for PyTorch: declare, plan, attach; and choose the strength."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from penalize.torch.acting.attachment import Attachment
from penalize.torch.auditing.audit import audit
from penalize.torch.model.scope import declare, scope
from penalize.torch.plan import Plan
from penalize.torch.regularize import regularize

if TYPE_CHECKING:
    from penalize.torch.selection.path import path
    from penalize.torch.selection.result import Path
    from penalize.torch.selection.strengths import geometric, strength_max
    from penalize.torch.selection.training import Training
    from penalize.torch.selection.tuning import tune

__all__ = [
    "Attachment",
    "Path",
    "Plan",
    "Training",
    "audit",
    "declare",
    "geometric",
    "path",
    "regularize",
    "scope",
    "strength_max",
    "tune",
]

_SELECTION = {
    "Path": "result",
    "Training": "training",
    "geometric": "strengths",
    "path": "path",
    "strength_max": "strengths",
    "tune": "tuning",
}
"""What is loaded when it is first used: it takes longer than all else together."""


def __getattr__(name: str) -> object:
    if name in _SELECTION:
        module = _import_module(f"{__name__}.selection.{_SELECTION[name]}")
        return globals().setdefault(name, getattr(module, name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_SELECTION]
