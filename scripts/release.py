"""Build what is released, look into it, and install it in bare environments.

``make release-check`` runs this. A source distribution, and from it a wheel, go to build/release;
twine and a list of what may be in them check both. Then scripts/bare.py installs the wheel with
each extra alone, which takes a quarter of an hour and some GB of packages: it is no part of CI.

``--extras torch jax`` installs these alone, and ``--python python3.13`` under another Python.
``--least`` installs, in their place, the oldest versions that pyproject.toml admits, and runs a
part of the tests there. For a release, ``--home URL`` says where the repository is, for the links
of the README, and ``--tag v1.2.3`` that the version is the one that is meant.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import bare

ROOT = Path(__file__).parent.parent
BUILT = ROOT / "build" / "release"
CODE = {".py", ".pyi", ".typed"}

_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)\s]+)\)")


def version() -> str:
    """The version of the package as it is here."""
    text = (ROOT / "src" / "penalize" / "__init__.py").read_text("utf-8")
    return re.findall(r'^__version__ = "(.*)"$', text, re.MULTILINE)[0]


def with_links(readme: str, home: str, tag: str) -> str:
    """The README as a package index shows it: files and pictures by their address.

    Args:
        readme: what links to files by their path in the repository.
        home: the address of the repository.
        tag: of the release.
    """

    def link(found: re.Match[str]) -> str:
        mark, text, path = found.groups()
        return f"{mark}[{text}]({home}/{'raw' if mark else 'blob'}/{tag}/{path})"

    return _LINK.sub(link, readme)


def tracked(*folders: str) -> list[str]:
    """The files of the repository, by path."""
    found = subprocess.run(
        ["git", "ls-files", "-z", *folders], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    return found.stdout.rstrip("\0").split("\0")


def build(home: str) -> tuple[Path, Path]:
    """The source distribution and the wheel, built of what is tracked and nothing beside it."""
    shutil.rmtree(BUILT, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in tracked():
            target = Path(folder, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)
        if home:
            readme = Path(folder, "README.md")
            linked = with_links(readme.read_text("utf-8"), home.rstrip("/"), f"v{version()}")
            readme.write_text(linked, "utf-8")
        bare.run(sys.executable, "-m", "build", "--no-isolation", "--outdir", BUILT, folder)
    (source,), (wheel,) = BUILT.glob("*.tar.gz"), BUILT.glob("*.whl")
    return source, wheel


def check(source: Path, wheel: Path) -> None:
    """Stop unless twine is content, and both hold the package, what describes it, and no more."""
    bare.run(sys.executable, "-m", "twine", "check", "--strict", source, wheel)
    package, name = tracked("src"), f"penalize-{version()}"
    if strange := [path for path in package if Path(path).suffix not in CODE]:
        raise SystemExit(f"the package has {strange}, which are no code")
    about = ["METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"]
    with zipfile.ZipFile(wheel) as archive:
        expected = [path.removeprefix("src/") for path in package]
        expected += [f"{name}.dist-info/{each}" for each in about]
        compare(wheel, archive.namelist(), expected)
    about = [".gitignore", "CHANGELOG.md", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml"]
    with tarfile.open(source) as archive:
        compare(source, archive.getnames(), [f"{name}/{each}" for each in package + about])


def compare(path: Path, found: Iterable[str], expected: Iterable[str]) -> None:
    """Stop unless an archive has these files."""
    has, wants = set(found), set(expected)
    if has != wants:
        more, less = sorted(has - wants), sorted(wants - has)
        raise SystemExit(f"{path.name} has {more}, which it should not, and lacks {less}")
    print(f"{path.name}: {len(has)} files, {path.stat().st_size / 1e3:.0f} kB")


def main() -> None:
    """Build, check, install; stop at the first thing that is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--extras", nargs="*", default=bare.extras(), metavar="EXTRA")
    parser.add_argument("--python", default=sys.executable, help="of the environments")
    parser.add_argument("--least", nargs="*", choices=bare.LEAST, metavar="WHICH")
    parser.add_argument("--home", default="", help="the address of the repository")
    parser.add_argument("--tag", default="", help="of the release")
    arguments = parser.parse_args()
    if arguments.tag not in ("", f"v{version()}"):
        raise SystemExit(f"the tag is {arguments.tag}, and the version {version()}")
    source, wheel = build(arguments.home)
    check(source, wheel)
    if arguments.least is not None:
        for name in arguments.least or bare.LEAST:
            print(bare.tested(wheel, name), flush=True)
        return
    for extra in arguments.extras:
        print(bare.tried(wheel, extra, arguments.python), flush=True)


if __name__ == "__main__":
    main()
