"""Write what README and the guides show: the demo's table and picture, how far the frameworks are
apart, and what code prints.

``make readme`` runs this after the demo; tests/test_docs.py holds every page to it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from documents import DOCS, ROOT, pages, place_to_run, read, runs, with_outputs, with_part

DEMO = ROOT / "build" / "demo"


def _measured_agreement() -> str:
    """As tests/test_agreement.py measures it, in a process of its own."""
    command = [sys.executable, "-m", "agreement"]
    done = subprocess.run(
        command, cwd=ROOT / "tests", stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def main() -> None:
    """Copy the demo's picture and table into docs/, and write README and guides."""
    os.environ["KERAS_BACKEND"] = "tensorflow"  # the guides': Keras reads it when it is imported
    for name in ("digits.png", "digits.md"):
        shutil.copyfile(DEMO / name, DOCS / name)
    table, agreement = read(DOCS / "digits.md"), _measured_agreement()
    for page in pages():
        text = with_part(with_part(read(page), "digits", table), "agreement", agreement)
        if runs(text):
            with place_to_run() as folder:
                text = with_outputs(text)
                for picture in folder.glob("*.png"):
                    shutil.copyfile(picture, DOCS / picture.name)
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
