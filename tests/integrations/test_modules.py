"""The modules of the integrations: what they say of themselves, and without their trainers."""

from __future__ import annotations

import importlib
import inspect
import sys
from typing import Any

import pytest

from penalize import MissingPackageError

TRAINERS = {
    "ignite": "PenalizeCallback",
    "keras": "PenalizeCallback",
    "skorch": "PenalizeCallback",
    "accelerate": "prepare",
    "lightning": "PenalizeCallback",
    "transformers": "PenalizeCallback",
}


def module_of(trainer: str) -> Any:
    return importlib.import_module(f"penalize.integrations.{trainer}")


@pytest.mark.parametrize(("trainer", "name"), TRAINERS.items(), ids=TRAINERS)
def test_documented(trainer: str, name: str) -> None:
    public = getattr(module_of(trainer), name)
    for part in ("Args:", "Raises:"):
        assert part in inspect.getdoc(public)
    for attribute, member in vars(public).items():
        if not attribute.startswith("_"):
            assert inspect.getdoc(member), attribute


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_trainer_that_is_not_installed(trainer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = module_of(trainer)
    monkeypatch.delitem(sys.modules, module.__name__)
    for name in (trainer, "ignite.engine", "lightning.pytorch"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackageError, match=rf"needs \S*{trainer}, .* extra \[{trainer}\]"):
        module_of(trainer)
