"""What MkDocs is told beside mkdocs.yml: pages that do not stand in docs/, and links to them.

In the repository a link is a path to a file, which an editor and GitHub follow. In the site README
is the home page, and examples and measurements are pages; here their links are made to fit.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from documents import ROOT, name_of, read, with_links
from mkdocs.structure.files import File, Files

OUTSIDE = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "benchmarks/results/*.md",
    "benchmarks/results/*.png",
    "examples/*.py",
)
"""What of the repository is in the site beside docs/."""


def outside() -> list[Path]:
    """Its files."""
    return [path for pattern in OUTSIDE for path in sorted(ROOT.glob(pattern))]


def uri_of(name: str) -> str:
    """A path in the repository → its place in the site, before it is built."""
    if name == "README.md":
        return "index.md"
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    return name.lower().removesuffix(".py") + ".md" if name.endswith(".py") else name.lower()


def uris() -> dict[str, str]:
    """Of what stands outside docs/: the place in the site → the path in the repository."""
    return {uri_of(name_of(path)): name_of(path) for path in outside()}


def fitting(link: str, name: str) -> str:
    """A link of the file of a name in the repository, as it has to be in the site."""
    path, mark, anchor = link.partition("#")
    if not path:
        return link
    target = posixpath.normpath(posixpath.join(posixpath.dirname(name), path))
    if not (ROOT / target).is_file():
        return link
    return posixpath.relpath(uri_of(target), posixpath.dirname(uri_of(name)) or ".") + mark + anchor


def _page_of(path: Path) -> str:
    """A program as a page: what it says of itself, and its code."""
    title = path.stem.replace("_", " ").capitalize().replace("Jax", "JAX")
    return f"# {title}\n\n```python\n{read(path)}```\n"


def with_bars(document: str) -> str:
    """The document with bars in the code of tables bare, as MkDocs wants them; GitHub does not."""
    return re.sub(
        r"^\|.*$",
        lambda row: re.sub(r"`[^`]+`", lambda code: code[0].replace("\\|", "|"), row[0]),
        document,
        flags=re.MULTILINE,
    )


# --- what MkDocs calls ----------------------------------------------------------------------------


def on_files(files: Files, *, config: Any) -> Files:
    """Add what stands outside docs/."""
    for path in outside():
        uri = uri_of(name_of(path))
        if path.suffix == ".py":
            files.append(File.generated(config, uri, content=_page_of(path)))
        else:
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Have links and tables fit, and the home page its full width: its tab has no other."""
    uri = page.file.src_uri
    if uri == uri_of("README.md"):
        page.meta["hide"] = ["navigation"]
    return with_links(
        with_bars(markdown), lambda link: fitting(link, uris().get(uri, f"docs/{uri}"))
    )
