"""README and the pages under docs/: what their code prints, their measured parts, and their links.

No ``text`` block and nothing between marks is edited by hand. tests/test_docs.py runs every page
and holds it to what this module would write.
"""

from __future__ import annotations

import contextlib
import io
import linecache
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

_BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FENCED = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(rf"{FENCED.pattern}|`[^`\n]+`", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_FENCES = re.compile(r"^ *```+ *py", re.MULTILINE)


def pages() -> list[Path]:
    """README, and every page of the site."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def name_of(page: Path) -> str:
    """Its path in the repository."""
    return page.relative_to(ROOT).as_posix()


def read(page: Path) -> str:
    """Its text."""
    return page.read_text(encoding="utf-8")


def runs(document: str) -> bool:
    """Whether there is code in it. Raises ValueError if some of it would not be run."""
    found = [block[1] for block in _BLOCK.finditer(document)].count("python")
    if found != len(_FENCES.findall(document)):
        raise ValueError("a code block that stands indented, or says py, would not be run")
    return found > 0


def with_outputs(document: str) -> str:
    """The document with each ``text`` block as the ``python`` block before it prints.

    The code runs from top to bottom in one namespace, as if in a file ``train.py``.
    """
    import torch

    torch.manual_seed(0)
    namespace: dict[str, Any] = {}
    printed = ""

    def run(block: re.Match[str]) -> str:
        nonlocal printed
        language, body = block.groups()
        if language == "text":
            return f"```text\n{printed}```"
        # For whoever asks for source: TensorFlow's AutoGraph, and tracebacks.
        linecache.cache["train.py"] = len(body), None, body.splitlines(keepends=True), "train.py"
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(body, "train.py", "exec"), namespace)
        printed = out.getvalue()
        return block.group()

    return _BLOCK.sub(run, document)


@contextlib.contextmanager
def place_to_run() -> Iterator[Path]:
    """An empty folder to run a page in, and the environment of one rank, as torchrun makes it.

    The tests' scripts, which a page may run, are below it.
    """
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("tests").symlink_to(ROOT / "tests")
        os.environ.update(RANK="0", WORLD_SIZE="1", MASTER_ADDR="localhost", MASTER_PORT="0")
        try:
            yield Path(folder)
        finally:
            os.environ.clear()
            os.environ.update(before)


def with_part(document: str, name: str, written: str) -> str:
    """The document with what is between the marks of a name, where it has them, written anew."""
    return _marks(name).sub(lambda found: f"{found[1]}{written.strip()}\n{found[3]}", document)


def part_of(document: str, name: str) -> str:
    """What stands between the marks of a name; empty where there are none."""
    found = _marks(name).search(document)
    return found[2].strip() if found else ""


def _marks(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name}: [^\n]*-->\n)(.*?)(<!-- /{name} -->)", re.DOTALL)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [" | ".join(header), " | ".join("---" for _ in header)]
    lines += [" | ".join(cell.replace("|", r"\|") for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


# --- links --------------------------------------------------------------------------------------


def with_links(document: str, change: Callable[[str], str]) -> str:
    """The document with each relative link, also of a picture, as ``change`` of it."""
    code = [span.span() for span in _CODE.finditer(document)]

    def changed(found: re.Match[str]) -> str:
        inside = any(begin <= found.start() < end for begin, end in code)
        if inside or re.match(r"[a-z]+:", found[1]):
            return found[0]
        return f"]({change(found[1])})"

    return _LINK.sub(changed, document)


def links(document: str) -> list[str]:
    """Its relative links."""
    found: list[str] = []
    with_links(document, lambda link: found.append(link) or link)  # type: ignore[func-returns-value]
    return found


def anchors(document: str) -> set[str]:
    """Those of its headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-") for text in headings}
