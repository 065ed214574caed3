"""Every public name has a docstring, and what the README says is true."""

from __future__ import annotations

import contextlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from catalogue import CATALOGUE, page
from readme import with_outputs, with_table

import penalize
import penalize.jax
import penalize.keras
import penalize.tensorflow
import penalize.torch
from penalize import L2, Custom, Regularizer, Scheduled, Sum
from penalize.torch import tf1

ROOT = Path(__file__).parent.parent


PUBLIC = [
    penalize,
    penalize.torch,
    tf1,
    tf1.losses,
    tf1.contrib.layers,
    penalize.tensorflow,
    penalize.tensorflow.contrib.layers,
    penalize.keras,
    penalize.jax,
]


LISTED = [type(r) for regularizers in CATALOGUE.values() for r in regularizers]


@pytest.mark.parametrize("kind", [*LISTED, Sum, Scheduled, Custom])
def test_regularizers_say_what_they_are(kind: type[Regularizer]) -> None:
    parts = ["Raises:", "prox", *(["Args:"] if kind is not penalize.NonNegative else [])]
    for part in [*parts, *(["Source:"] if kind in LISTED else [])]:
        assert part in (kind.__doc__ or ""), part


def test_the_catalogue_is_complete_and_up_to_date() -> None:
    public = [getattr(penalize, name) for name in penalize.__all__]
    kinds = {x for x in public if isinstance(x, type) and issubclass(x, Regularizer)}
    bases = {Regularizer, penalize.Elementwise, penalize.Constraint, Sum, Scheduled, Custom}
    assert set(LISTED) == kinds - bases
    assert (ROOT / "docs" / "regularizers.md").read_text(encoding="utf-8") == page()
    assert (ROOT / "docs" / "regularizers.png").stat().st_size > 0


@pytest.mark.parametrize("module", PUBLIC, ids=lambda m: m.__name__)
def test_public_names_are_documented(module: ModuleType) -> None:
    for name in module.__all__:
        value = getattr(module, name)
        assert inspect.getdoc(value), name
        if inspect.isclass(value):
            for attribute, member in inspect.getmembers(value):
                code = member.fget if isinstance(member, property) else inspect.unwrap(member)
                ours = getattr(code, "__module__", "") or ""
                if not attribute.startswith("_") and ours.startswith("penalize"):
                    assert inspect.getdoc(member), f"{name}.{attribute}"


def test_the_readme_prints_what_it_says_and_shows_the_demos_table() -> None:
    """Both are written by `make readme`; a README that has drifted differs from its rewriting."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = (ROOT / "docs" / "digits.md").read_text(encoding="utf-8")
    assert table.strip() in text
    assert with_outputs(with_table(text, table)) == text
    assert (ROOT / "docs" / "digits.png").stat().st_size > 0


def test_the_source_in_contributing_is_the_source() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    source = {
        line.strip().rstrip(",")
        for folder in ("src", "tests")
        for path in (ROOT / folder).rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
    }
    *quoted, wing = re.findall(r"^ *```python\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)
    lines = [line.strip().rstrip(",") for block in quoted for line in block.splitlines()]
    assert [line for line in lines if line not in source] == []
    namespace: dict[str, Any] = {}
    exec(wing, namespace)
    plan = namespace["Plan"]({"a/w": np.ones((2, 2)), "a/b": np.ones(2)}, L2(0.5))
    assert plan.breakdown() == {"a.w": 2.0}


def test_the_guide_to_choosing_prints_what_it_says(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "choosing.md").read_text(encoding="utf-8")
    with contextlib.chdir(tmp_path):
        assert with_outputs(text) == text
    assert [p.name for p in tmp_path.iterdir()] == ["path.png"]
    assert (ROOT / "docs" / "path.png").stat().st_size > 0


def test_the_page_on_logging_prints_what_it_says(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "loggers.md").read_text(encoding="utf-8")
    with contextlib.chdir(tmp_path):
        assert with_outputs(text) == text
    assert [p.name for p in tmp_path.iterdir()] == ["runs"]


def test_drift_would_be_seen() -> None:
    block = "```python\nprint(1 + 1)\n```\n\n```text\n{}\n```\n"
    assert with_outputs(block.format(3)) == block.format(2)
    marked = "<!-- digits: x -->\n{}\n<!-- /digits -->"
    assert with_table(marked.format("old"), "new") == marked.format("new")
