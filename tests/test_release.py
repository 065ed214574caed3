"""What is released says the same everywhere, and the scripts that check it see what is wrong."""

from __future__ import annotations

import re
import sys
import zipfile
from pathlib import Path

import bare
import pytest
import release

import penalize

ROOT = Path(__file__).parent.parent


def text_of(*path: str) -> str:
    return ROOT.joinpath(*path).read_text("utf-8")


def test_one_version_and_one_date() -> None:
    version, date = re.findall(r"^## \[(.*)\] - (.*)$", text_of("CHANGELOG.md"), re.MULTILINE)[0]
    assert version == penalize.__version__ == release.version()
    cited = text_of("CITATION.cff")
    assert f'\nversion: {version}\ndate-released: "{date}"\n' in cited


def test_what_the_readme_links_to_is_there_and_gets_an_address() -> None:
    linked = release.with_links(
        "![a](docs/a.png) [b](docs/b.md#c) [d](https://d.e/f) [g](#h)", "https://x/y", "v1"
    )
    assert linked == (
        "![a](https://x/y/raw/v1/docs/a.png) [b](https://x/y/blob/v1/docs/b.md#c) "
        "[d](https://d.e/f) [g](#h)"
    )
    found = release.with_links(text_of("README.md"), "HOME", "TAG")
    paths = re.findall(r"\(HOME/(?:raw|blob)/TAG/([^)#]+)", found)
    assert len(paths) > 3
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_extras_are_read_with_those_in_them() -> None:
    assert dict(bare.least("fast")).keys() == {"torch", "numpy", "llvmlite"}
    for extra in bare.extras():
        assert all(version for _, version in bare.least(extra)), extra
    assert bare.TRIES.keys() <= set(bare.extras())
    assert "print(plan)" in bare.first_program()
    assert {"torch", "tensorflow", "jax"} <= bare.pinned().keys()


def test_what_should_not_be_in_a_wheel_is_seen(tmp_path: Path) -> None:
    wheel = tmp_path / "penalize.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("penalize/notes.txt", "")
    with pytest.raises(SystemExit, match=r"has \['penalize/notes\.txt'\], which it should not, an"):
        release.compare(wheel, ["penalize/notes.txt"], ["penalize/__init__.py"])


def test_a_tag_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["release.py", "--tag", "v0.0.1"])
    with pytest.raises(SystemExit, match=r"the tag is v0\.0\.1, and the version"):
        release.main()
