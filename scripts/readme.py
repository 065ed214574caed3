"""Write the figures of README and porting guide: the demo's table and picture, what code prints,
and how far the frameworks are apart.

``make readme`` runs this after the demo. Neither is edited by hand between markers or in ``text``
blocks; tests/test_docs.py and tests/test_porting.py hold them to what this module would write.
"""

from __future__ import annotations

import contextlib
import io
import linecache
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "build" / "demo"

_BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_TABLE = re.compile(r"(<!-- digits:[^\n]*-->\n).*?(<!-- /digits -->)", re.DOTALL)
_AGREEMENT = re.compile(r"(<!-- agreement:[^\n]*-->\n)(.*?)(<!-- /agreement -->)", re.DOTALL)


def with_outputs(document: str) -> str:
    """The document with each ``text`` block as the ``python`` block before it prints.

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
        # For whoever asks for source: TensorFlow's AutoGraph, and tracebacks.
        linecache.cache["train.py"] = len(body), None, body.splitlines(keepends=True), "train.py"
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(body, "train.py", "exec"), namespace)
        printed = out.getvalue()
        return block.group()

    return _BLOCK.sub(run, document)


def with_table(readme: str, table: str) -> str:
    """The README with the demo's table between its markers."""
    return _TABLE.sub(lambda found: f"{found[1]}{table.strip()}\n{found[2]}", readme)


def with_agreement(readme: str, written: str) -> str:
    """The README with the rules, and how far the frameworks are apart, between its markers."""
    return _AGREEMENT.sub(lambda found: f"{found[1]}{written.strip()}\n{found[3]}", readme)


def agreement_in(readme: str) -> str:
    """What stands between the markers of :func:`with_agreement`."""
    found = _AGREEMENT.search(readme)
    return found[2].strip() if found else ""


def _measured_agreement() -> str:
    """As tests/test_agreement.py measures it, in a process of its own."""
    command = [sys.executable, "-m", "agreement"]
    done = subprocess.run(
        command, cwd=ROOT / "tests", stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def main() -> None:
    """Copy the demo's picture and table into docs/, and write README and porting guide."""
    os.environ["KERAS_BACKEND"] = "tensorflow"  # the guide's: Keras reads it when it is imported
    for name in ("digits.png", "digits.md"):
        shutil.copyfile(DEMO / name, ROOT / "docs" / name)
    path = ROOT / "README.md"
    table = (ROOT / "docs" / "digits.md").read_text(encoding="utf-8")
    readme = with_outputs(with_table(path.read_text(encoding="utf-8"), table))
    path.write_text(with_agreement(readme, _measured_agreement()), encoding="utf-8")
    for name in ("porting.md", "audit.md", "choosing.md", "jax-loops.md"):
        guide = ROOT / "docs" / name
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            Path("tests").symlink_to(ROOT / "tests")  # scripts that a guide runs
            guide.write_text(with_outputs(guide.read_text(encoding="utf-8")), encoding="utf-8")
            for picture in Path(folder).glob("*.png"):
                shutil.copyfile(picture, guide.parent / picture.name)


if __name__ == "__main__":
    main()
