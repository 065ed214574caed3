"""Write what README and the guides show: the demo's table and picture, how far the frameworks are
apart, what is tested in trainers, and what code prints.

``make readme`` runs this after the demo; tests/test_docs.py holds every page to it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from documents import DOCS, ROOT, pages, place_to_run, read, runs, with_outputs, with_part

DEMO = ROOT / "build" / "demo"


def _made(module: str) -> str:
    """What a module of the tests prints, in a process of its own."""
    command = [sys.executable, "-m", module]
    done = subprocess.run(
        command, cwd=ROOT / "tests", stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def main() -> None:
    """Copy the demo's picture and table into docs/, and write README and guides."""
    os.environ["KERAS_BACKEND"] = "tensorflow"  # the guides': Keras reads it when it is imported
    for name in ("digits.png", "digits.md"):
        shutil.copyfile(DEMO / name, DOCS / name)
    parts = {
        "digits": read(DOCS / "digits.md"),
        "agreement": _made("agreement"),
        "features": _made("trainer_features"),
    }
    for page in pages():
        text = read(page)
        for name, written in parts.items():
            text = with_part(text, name, written)
        if runs(text):
            with place_to_run() as folder:
                text = with_outputs(text)
                for picture in folder.glob("*.png"):
                    shutil.copyfile(picture, DOCS / picture.name)
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
