"""Every public name has a docstring, and what README and guides show is what their code prints."""

from __future__ import annotations

import inspect
import re
import tomllib
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from by_hand import ADVICE
from catalogue import CATALOGUE, tables
from documents import (
    DOCS,
    ROOT,
    name_of,
    pages,
    part_of,
    place_to_run,
    read,
    runs,
    with_outputs,
    with_part,
)
from units_page import parts as unit_tables

import penalize
import penalize.jax
import penalize.keras
import penalize.tensorflow
import penalize.torch
import penalize.units
from penalize import L2, Custom, Regularizer, Scheduled, Sum, cli, read_rules
from penalize.torch import tf1

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
    penalize.units,
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
    assert part_of(read(DOCS / "regularizers.md"), "catalogue") == tables().strip()
    assert (DOCS / "regularizers.png").stat().st_size > 0


def test_the_tables_of_units_are_up_to_date() -> None:
    """`make units` writes them."""
    page = read(DOCS / "units.md")
    for name, written in unit_tables().items():
        assert part_of(page, name) == written.strip()


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


NAMES = [getattr(penalize, name) for name in penalize.__all__]
WARNINGS = [x for x in NAMES if isinstance(x, type) and issubclass(x, Warning)]


@pytest.mark.parametrize("page", [page for page in pages() if runs(read(page))], ids=name_of)
def test_a_page_prints_what_it_says(page: Path) -> None:
    """`make readme` writes it. Its code may warn of nothing but what the page names."""
    text = read(page)
    with place_to_run() as folder, warnings.catch_warnings():
        for advice in ADVICE:
            warnings.filterwarnings("ignore", advice)
        for kind in WARNINGS:
            if kind.__name__ in text:
                warnings.simplefilter("ignore", kind)
        assert with_outputs(text) == text
        pictures = [path.name for path in folder.glob("*.png")]
    for name in pictures:
        assert (DOCS / name).stat().st_size > 0


def test_the_readme_is_of_one_page_and_shows_the_demos_table() -> None:
    text, table = read(ROOT / "README.md"), read(DOCS / "digits.md")
    assert text.count("\n") <= 180
    assert part_of(text, "digits") == table.strip()
    assert (DOCS / "digits.png").stat().st_size > 0


SHOWN = "\n".join(read(page) for page in pages())


def test_commands_that_are_shown_exist() -> None:
    lines = [
        line.partition("#")[0].split()
        for block in re.findall(r"^```sh\n(.*?)^```$", SHOWN, re.DOTALL | re.MULTILINE)
        for line in block.splitlines()
        if line.partition("#")[0].strip()
    ]
    for words in [*lines, *(span.split() for span in re.findall(r"`(make [^`]+)`", SHOWN))]:
        if words[0] == "make":
            assert f"\n{words[1]}:" in read(ROOT / "Makefile"), words
        elif words[0] == "penalize":
            cli._parser().parse_args(words[1:])


def test_extras_that_are_shown_exist() -> None:
    extras = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]["optional-dependencies"]
    shown = {word for found in re.findall(r'"\.\[([a-z,]+)\]"', SHOWN) for word in found.split(",")}
    assert {"torch", "fast"} < shown <= {*extras}


def test_rules_files_that_are_shown_are_read(tmp_path: Path) -> None:
    found = re.findall(r"^```toml\n(.*?)^```$", SHOWN, re.DOTALL | re.MULTILINE)
    assert found
    for text in found:
        (tmp_path / "rules.toml").write_text(text, encoding="utf-8")
        assert len(read_rules(tmp_path / "rules.toml")) == text.count("[[rules]]")


def test_the_source_in_contributing_is_the_source() -> None:
    text = read(ROOT / "CONTRIBUTING.md")
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


def test_drift_would_be_seen() -> None:
    block = "```python\nprint(1 + 1)\n```\n\n```text\n{}\n```\n"
    assert with_outputs(block.format(3)) == block.format(2)
    marked = "<!-- digits: x -->\n{}\n<!-- /digits -->"
    assert with_part(marked.format("old"), "digits", "new") == marked.format("new")
    assert with_part(marked.format("old"), "other", "new") == marked.format("old")
    assert part_of(marked.format("told"), "digits") == "told"


@pytest.mark.parametrize("fence", ["  ```python\n  1\n  ```", "```py\n1\n```"])
def test_code_that_would_not_run_would_be_seen(fence: str) -> None:
    with pytest.raises(ValueError, match="would not be run"):
        runs(f"- A list.\n\n{fence}\n")
