"""Look at every page of the built site in a real browser, on a desktop and a phone, light and dark.

Fails if a page is wider than its window, does not show a picture, asks for anything from elsewhere,
or has the colours of the other scheme; leaves screenshots of some pages to be looked at.
"""

from __future__ import annotations

import html
import json
import re
import sys
from itertools import product
from pathlib import Path

from browser import chromium

SITE = Path("build/site").resolve()
WIDTHS = {"desktop": 1280, "phone": 390}
SCHEMES = {"dark": 0, "light": 1}
"""What Chromium calls them."""

SHOWN = ("index.html", "doors/index.html", "regularizers/index.html", "api/torch/index.html")

PROBE = """
<script>
window.addEventListener("load", () => setTimeout(() => {
  document.title = JSON.stringify([...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, body = page.body;
    const light = getComputedStyle(body).backgroundColor.match(/\\d+/g)[0] > 127;
    return {
      page: frame.getAttribute("src"),
      width: page.documentElement.scrollWidth,
      broken: [...page.images].filter(x => !x.naturalWidth).map(x => x.src),
      asked: performance.getEntriesByType("resource").concat(
        frame.contentWindow.performance.getEntriesByType("resource")
      ).map(x => x.name).filter(x => !x.startsWith("file:")),
      scheme: light ? "light" : "dark",
    };
  }));
}, 1000));
</script>
"""


def page_of(addresses: list[str], width: int, height: int) -> Path:
    """A page with these in frames, which may be narrower than a window of Chromium."""
    frames = "\n".join(
        f'<iframe src="{address}" width="{width}" height="{height}" style="border:0"></iframe>'
        for address in addresses
    )
    path = SITE / "_frames.html"
    path.write_text(f'<body style="margin:0">{frames}{PROBE}</body>', "utf-8")
    return path


def look(addresses: list[str], word: str, scheme: str) -> list[str]:
    """What is wrong with pages at a width."""
    flags = ["--allow-file-access-from-files"]
    flags.append(f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}")
    frames = page_of(addresses, WIDTHS[word], 900)
    dom = chromium(*flags, "--virtual-time-budget=20000", "--dump-dom", frames.as_uri())
    found = re.search(r"<title>(.*?)</title>", dom)
    if found is None:
        return [f"{word}, {scheme}: the pages did not load"]
    problems = []
    for seen in json.loads(html.unescape(found[1])):
        where = f"{seen['page']}, {word}, {scheme}: "
        if seen["width"] > WIDTHS[word]:
            problems.append(f"{where}{seen['width']} pixels wide in a window of {WIDTHS[word]}")
        if seen["broken"] or seen["asked"]:
            problems.append(f"{where}no picture {seen['broken']}, asked for {seen['asked']}")
        if seen["scheme"] != scheme:
            problems.append(f"{where}it is {seen['scheme']}")
    return problems


def shoot(address: str, word: str, scheme: str, folder: Path) -> None:
    """A screenshot."""
    name = Path(address).parent.name or "home"
    chromium(
        "--allow-file-access-from-files",
        f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}",
        "--virtual-time-budget=4000",
        f"--window-size={max(WIDTHS[word], 500)},2600",
        f"--screenshot={folder / f'{name}-{word}-{scheme}.png'}",
        page_of([address], WIDTHS[word], 2600).as_uri(),
    )


def main() -> None:
    """Look at the site, which ``make docs`` has built."""
    folder = Path("build/browser").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    addresses = [str(page.relative_to(SITE)) for page in sorted(SITE.rglob("index.html"))]
    problems = []
    for word, scheme in product(WIDTHS, SCHEMES):
        problems += look(addresses, word, scheme)
        for address in SHOWN:
            shoot(address, word, scheme, folder)
    (SITE / "_frames.html").unlink()
    if problems:
        sys.exit("\n".join(problems))
    print(f"looked at {len(addresses)} pages of {SITE}; screenshots of {len(SHOWN)} in {folder}")


if __name__ == "__main__":
    main()
