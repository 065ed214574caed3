"""Every public name has a docstring, and what the README says is true."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

import penalize
import penalize.torch

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("module", [penalize, penalize.torch], ids=lambda m: m.__name__)
def test_public_names_are_documented(module: ModuleType) -> None:
    for name in module.__all__:
        value = getattr(module, name)
        assert inspect.getdoc(value), name
        if inspect.isclass(value):
            for attribute, member in inspect.getmembers(value):
                ours = getattr(inspect.unwrap(member), "__module__", "") or ""
                if not attribute.startswith("_") and ours.startswith("penalize"):
                    assert inspect.getdoc(member), f"{name}.{attribute}"


class Blocks:
    """The README's code, run from top to bottom in one namespace, as ``train.py``."""

    def __init__(self) -> None:
        text = (ROOT / "README.md").read_text(encoding="utf-8")
        self.found = re.findall(r"^```(python|text)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)

    def run(self) -> list[tuple[str, str]]:
        """Each ``python`` block's output with the ``text`` block that follows it."""
        torch.manual_seed(0)
        namespace: dict[str, Any] = {"torch": torch, "nn": nn}
        pairs, printed = [], ""
        for language, body in self.found:
            if language == "text":
                pairs.append((printed, body))
                continue
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(body, "train.py", "exec"), namespace)
            printed = out.getvalue()
        return pairs


def test_the_readme_runs_and_prints_what_it_says() -> None:
    pairs = Blocks().run()
    assert pairs
    for printed, shown in pairs:
        assert printed == shown


def test_the_readme_shows_the_demos_table() -> None:
    """`make readme` writes both from one run."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = (ROOT / "docs" / "digits.md").read_text(encoding="utf-8").strip()
    assert table in readme
    assert (ROOT / "docs" / "digits.png").stat().st_size > 0
