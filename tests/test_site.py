"""The site of the documentation, as far as it can be told without building it.

`make docs` builds it, strictly; the workflow docs.yml does so for every change.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from docs_site import fitting, outside, uri_of, with_bars
from documents import DOCS, FENCED, ROOT, anchors, links, name_of, pages, read, with_links
from mkdocs.utils.yaml import yaml_load


@cache
def config() -> dict[str, Any]:
    """What mkdocs.yml says."""
    with (ROOT / "mkdocs.yml").open(encoding="utf-8") as file:
        return yaml_load(file)


@cache
def site() -> set[str]:
    """Every file that is in the site, before it is built."""
    there = {uri_of(name_of(path)) for path in [*DOCS.rglob("*"), *outside()] if path.is_file()}
    return there - {*config()["exclude_docs"].split()}


def entries(nav: Any) -> Iterator[str]:
    """The pages of a navigation."""
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from entries(entry)


def test_the_navigation_has_every_page_once() -> None:
    written = {uri for uri in site() if uri.endswith(".md")}
    assert sorted(entries(config()["nav"])) == sorted(written)


DOCUMENTS = [
    *pages(),
    *(path for path in outside() if path.suffix == ".md" and path.parent != ROOT),
]
DOCUMENTS += [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]


@pytest.mark.parametrize("page", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    """In the repository and in the site."""
    for link in links(read(page)):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), link
        if anchor:
            assert anchor in anchors(read(target)), link
        there = posixpath.dirname(uri_of(name_of(page)))
        in_site = fitting(link, name_of(page)).partition("#")[0]
        assert not path or posixpath.normpath(posixpath.join(there, in_site)) in site(), link


@pytest.mark.parametrize("page", DOCUMENTS, ids=name_of)
def test_what_is_within_lists_is_indented_by_four(page: Path) -> None:
    """Less is enough for GitHub, and for MkDocs the end of the list."""
    found = re.findall(
        r"^ {1,3}(?:\||[-*] |\d\. |```).*$", FENCED.sub("", read(page)), re.MULTILINE
    )
    assert not found


def test_links_are_made_to_fit() -> None:
    text = "[a](docs/audit.md#x) ![b](docs/path.png) [c](https://x.y) [d](#e)\n`[f](docs/jax.md)`"
    assert links(text) == ["docs/audit.md#x", "docs/path.png", "#e"]
    assert with_links(text, lambda link: fitting(link, "README.md")) == text.replace(
        "(docs/audit", "(audit"
    ).replace("(docs/path", "(path")
    assert fitting("../examples/jax_path.py", "docs/choosing.md") == "examples/jax_path.md"
    assert fitting("../README.md#x", "docs/choosing.md") == "index.md#x"
    assert fitting("nowhere.md", "docs/choosing.md") == "nowhere.md"


def test_bars_in_the_code_of_tables_are_as_mkdocs_takes_them() -> None:
    """GitHub shows the bar in `a \\| b`, Python-Markdown the backslash too."""
    text = "| `kernels \\| norms` | Σ\\|w\\| |\n\n`a \\| b`\n"
    assert with_bars(text) == "| `kernels | norms` | Σ\\|w\\| |\n\n`a \\| b`\n"
