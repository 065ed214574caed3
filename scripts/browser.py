"""Look at the page of a path in a real browser, at the widths of a desktop and of a phone.

Makes a path of the digits, writes its page, and has headless Chromium (Debian's ``chromium``)
render it. Fails if the page asks for anything from elsewhere, is wider than the window,
or shows no picture; leaves a screenshot of each width to be looked at.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

from penalize import L1
from penalize.torch import Training, path, regularize

WIDTHS = {"desktop": (1280, 1400), "phone": (390, 2600)}

# Added to a copy of the page; what it finds is read from the title.
PROBE = """
<script>
window.addEventListener("load", () => {
  const boxes = [...document.querySelectorAll("figure svg")].map(s => s.getBoundingClientRect());
  document.title = JSON.stringify({
    inner: window.innerWidth,
    width: document.documentElement.scrollWidth,
    pictures: boxes.map(b => [Math.round(b.width), Math.round(b.height)]),
    rows: document.querySelectorAll("tbody tr").length,
    chosen: document.querySelectorAll("tr.chosen").length,
  });
});
</script>
"""


def make(file: Path) -> None:
    """The page of a short path."""
    x, y = load_digits(return_X_y=True)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    training = Training(
        x=torch.tensor(x / 16, dtype=torch.float32),
        y=torch.tensor(y),
        loss=nn.CrossEntropyLoss(),
        optimizer=partial(torch.optim.Adam, lr=3e-3),
        epochs=10,
        batch_size=64,
        score=lambda output, target: (output.argmax(1) == target).float().mean(),
    )
    path(training, regularize(model, L1(1.0)), 12, progress=False).html(file)


def chromium(*arguments: str) -> str:
    """What a run of it prints."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        sys.exit("make browser needs Chromium: apt-get install chromium")
    # A device of 390 pixels is a window of 390 only in headless mode of old; by iframe it is both.
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [browser, *flags, f"--user-data-dir={profile}", *arguments],
            check=True, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    return done.stdout


def look(page: Path, word: str, width: int, height: int, folder: Path) -> list[str]:
    """What is wrong at a width."""
    probe = folder / "probe.html"
    text = page.read_text("utf-8").replace("</body>", f"{PROBE}</body>")
    # A window can be no narrower than about 500 pixels, an iframe can.
    inner = folder / "inner.html"
    inner.write_text(text, "utf-8")
    probe.write_text(
        f'<body style="margin:0"><iframe src="inner.html" width="{width}" height="{height}" '
        'style="border:0" onload="setTimeout(() => document.title = '
        'this.contentDocument.title, 200)"></iframe></body>',
        "utf-8",
    )
    picture = folder / f"path-{word}.png"
    files = "--allow-file-access-from-files"
    chromium(
        files,
        f"--window-size={max(width, 500)},{height}",
        f"--screenshot={picture}",
        probe.as_uri(),
    )
    dom = chromium(files, "--virtual-time-budget=3000", "--dump-dom", probe.as_uri())
    probe.unlink()
    inner.unlink()
    found = re.search(r"<title>(.*?)</title>", dom)
    if found is None:
        return [f"{word}: the page did not load"]
    seen = json.loads(found.group(1).replace("&quot;", '"'))
    print(f"{word}: {seen}")
    problems = []
    if seen["inner"] != width:
        problems.append(f"{word}: it was shown {seen['inner']} pixels wide, not {width}")
    if seen["width"] > width:
        problems.append(f"{word}: the page is {seen['width']} pixels wide in a window of {width}")
    if len(seen["pictures"]) != 3 or any(w < 250 or h < 150 for w, h in seen["pictures"]):
        problems.append(f"{word}: the pictures measure {seen['pictures']}")
    if seen["rows"] != 12 or not 1 <= seen["chosen"] <= 2:
        problems.append(f"{word}: {seen['rows']} rows, {seen['chosen']} of them chosen")
    return problems


def main() -> None:
    """Make the page and look at it."""
    folder = Path("build/browser").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "path.html"
    make(page)
    text = page.read_text("utf-8")
    # Names of XML namespaces are no addresses that a browser asks for.
    asked = re.findall(
        r'(?:src|href|url)\s*[=(]\s*["\']?(?!#)([a-z]+:[^"\')\s>]+|[^#"\')\s>]+)', text
    )
    problems = [f"the page asks for {address}" for address in asked]
    for word, (width, height) in WIDTHS.items():
        problems += look(page, word, width, height, folder)
    if problems:
        sys.exit("\n".join(problems))
    print(f"looked at {page}; screenshots beside it")


if __name__ == "__main__":
    main()
