"""Every public name has a docstring, and what the README says is true."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType

import pytest
from readme import with_outputs, with_table

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


def test_the_readme_prints_what_it_says_and_shows_the_demos_table() -> None:
    """Both are written by `make readme`; a README that has drifted differs from its rewriting."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = (ROOT / "docs" / "digits.md").read_text(encoding="utf-8")
    assert table.strip() in text
    assert with_outputs(with_table(text, table)) == text
    assert (ROOT / "docs" / "digits.png").stat().st_size > 0


def test_drift_would_be_seen() -> None:
    block = "```python\nprint(1 + 1)\n```\n\n```text\n{}\n```\n"
    assert with_outputs(block.format(3)) == block.format(2)
    marked = "<!-- digits: x -->\n{}\n<!-- /digits -->"
    assert with_table(marked.format("old"), "new") == marked.format("new")
