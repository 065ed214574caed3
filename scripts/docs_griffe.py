"""How the API pages read our docstrings and stubs: an extension of Griffe, which mkdocstrings asks.

Docstrings are written to be read in Python's ``help``: their references are ``:func:`name```, their
tables those of reStructuredText. Here they become Markdown. The public names of a package that has
a stub ``__init__.pyi`` are those that it imports; none of them is imported to find that out.
"""

from __future__ import annotations

import re
from typing import Any

from documents import ROOT
from griffe import Extension, Module, NameResolutionError, Object

_ROLE = re.compile(r":(?:func|class|meth|attr|mod|data|exc):`~?([^`]+)`")
_TABLE = re.compile(
    r"^(?P<rule>=+ +=+)\n(?P<head>.*)\n(?P=rule)\n(?P<rows>.*?)\n(?P=rule)$",
    re.DOTALL | re.MULTILINE,
)


class Ours(Extension):
    """Docstrings in Markdown, and stubs taken at their word."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Rewrite one docstring."""
        if obj.docstring:
            text = _TABLE.sub(_table, obj.docstring.value)
            obj.docstring.value = _ROLE.sub(lambda found: _reference(found[1], obj), text)

    def on_package(self, *, pkg: Module, **kwargs: Any) -> None:
        """Say what is public where a stub imports it."""
        packages = [pkg]
        while packages:
            package = packages.pop()
            packages += [x for x in package.modules.values() if not x.is_alias]
            if package.is_init_module and package.filepath.with_suffix(".pyi").exists():
                aliases = [x.name for x in package.members.values() if x.is_alias]
                package.exports = [name for name in aliases if not name.startswith("_")]


def _reference(name: str, place: Object) -> str:
    """A link to what is named, in whatever page it stands; the name alone where it is in none."""
    try:
        path = place.resolve(name)
    except NameResolutionError:
        path = name
    module, _, own = path.rpartition(".")
    if (ROOT / "src" / module.replace(".", "/") / f"{own}.py").exists():
        path += f".{own}"  # a function of that name, which the package has in the module's place
    return f'<autoref optional identifier="{path}"><code>{name}</code></autoref>'


def _table(found: re.Match[str]) -> str:
    """A simple table of reStructuredText, whose first column has no gaps of two spaces."""
    width = re.match(r"=+ +", found["rule"]).end()
    rows: list[list[str]] = []
    for line in [found["head"], *found["rows"].splitlines()]:
        first, rest = line[:width].strip(), line[width:].strip()
        if first or not rows:
            rows.append([first, rest])
        else:
            rows[-1][1] += f" {rest}"
    lines = ["| {} | {} |".format(*(cell.replace("|", "\\|") for cell in row)) for row in rows]
    return "\n".join([lines[0], "| --- | --- |", *lines[1:]])
