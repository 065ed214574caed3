"""Write the README's figures: the demo's table and picture, and what its code prints.

``make readme`` runs this after the demo. The README is never edited by hand between its markers or
in its ``text`` blocks; tests/test_docs.py holds it to what this module would write.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "build" / "demo"

_BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_TABLE = re.compile(r"(<!-- digits:[^\n]*-->\n).*?(<!-- /digits -->)", re.DOTALL)


def with_outputs(readme: str) -> str:
    """The README with each ``text`` block as the ``python`` block before it prints.

    The code runs from top to bottom in one namespace, as if in a file ``train.py``.
    """
    torch.manual_seed(0)
    namespace: dict[str, Any] = {}
    printed = ""

    def run(block: re.Match[str]) -> str:
        nonlocal printed
        language, body = block.groups()
        if language == "text":
            return f"```text\n{printed}```"
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(body, "train.py", "exec"), namespace)
        printed = out.getvalue()
        return block.group()

    return _BLOCK.sub(run, readme)


def with_table(readme: str, table: str) -> str:
    """The README with the demo's table between its markers."""
    return _TABLE.sub(lambda found: f"{found[1]}{table.strip()}\n{found[2]}", readme)


def main() -> None:
    """Copy the demo's picture and table into docs/, and write the README."""
    for name in ("digits.png", "digits.md"):
        shutil.copyfile(DEMO / name, ROOT / "docs" / name)
    path = ROOT / "README.md"
    table = (ROOT / "docs" / "digits.md").read_text(encoding="utf-8")
    readme = with_outputs(with_table(path.read_text(encoding="utf-8"), table))
    path.write_text(readme, encoding="utf-8")


if __name__ == "__main__":
    main()
