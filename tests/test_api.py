"""The API pages of the site: public names and docstrings, as they are read without an import."""

from __future__ import annotations

import re
from functools import cache
from types import ModuleType
from typing import Any

import griffe
import pytest
from docs_griffe import Ours
from documents import DOCS, ROOT, read

import penalize
import penalize.jax
import penalize.keras
import penalize.tensorflow
import penalize.torch
from penalize import regularizers
from penalize.torch import tf1

WINGS = [penalize.torch, tf1, penalize.jax, penalize.tensorflow, penalize.keras]
API = "\n".join(read(page) for page in (DOCS / "api").glob("*.md"))


@cache
def package() -> Any:
    """penalize, as Griffe reads it."""
    return griffe.load(
        "penalize", search_paths=[ROOT / "src"], extensions=griffe.load_extensions(Ours)
    )


def found(module: ModuleType) -> Any:
    """A module of it."""
    return package() if module is penalize else package()[module.__name__.partition(".")[2]]


@pytest.mark.parametrize("module", [penalize, regularizers, *WINGS], ids=lambda m: m.__name__)
def test_public_names_are_found(module: ModuleType) -> None:
    """But for functions that are called as the module is in which they stand."""
    read_there = found(module)
    public = {name for name, member in read_there.members.items() if member.is_public}
    modules = {name for name, member in read_there.modules.items() if not member.is_alias}
    assert public - modules == {*module.__all__} - modules


def test_every_public_name_of_the_core_is_on_a_page() -> None:
    assert "::: penalize.regularizers\n" in API
    assert "::: penalize.errors\n" in API
    listed = {
        f"{module}.{name}"
        for module, names in re.findall(
            r"::: (penalize.*)\n(?:    .*\n)*?      members: \[(.*)\]", API
        )
        for name in names.split(", ")
    }
    for name in {*penalize.__all__} - {*regularizers.__all__}:
        home = package()[name].target_path
        assert home.startswith("penalize.errors.") or home in listed, home


@pytest.mark.parametrize("wing", WINGS, ids=lambda m: m.__name__)
def test_every_public_name_of_a_wing_is_on_a_page(wing: ModuleType) -> None:
    assert f"::: {wing.__name__}\n" in API
    for name, module in found(wing).modules.items():
        if name in wing.__all__ and not module.is_alias:
            one = f"{name}.{name}" if name in module.members else name
            assert f"::: {wing.__name__}.{one}" in API


def test_docstrings_become_markdown() -> None:
    attach = package()["torch.plan.Plan.attach"].docstring.value
    assert '\n| mode | in each step |\n| --- | --- |\n| ``"gradient"`` | ``.grad`` += ' in attach
    assert "====" not in attach
    assert "| max \\|g\\| / λ; with an L2" in (
        package()["regularizers.base.Regularizer.strength_max"].docstring.value
    )
    link = '<autoref optional identifier="penalize.torch.regularize.regularize">'
    assert link in package()["torch.plan.Plan"].docstring.value
