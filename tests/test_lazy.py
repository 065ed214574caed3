"""The public names stand once, in a stub, and are loaded when they are first used."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hatchling.builders.wheel import WheelBuilder

import penalize
from penalize import lazy

ROOT = Path(__file__).parent.parent
SOURCE = Path(penalize.__file__).parent
STUB = SOURCE / "__init__.pyi"


def output(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_names_are_those_of_their_modules() -> None:
    for name, home in lazy.homes("penalize").items():
        assert getattr(penalize, name) is getattr(sys.modules[home], name)
    assert penalize.__all__ == sorted(lazy.homes("penalize"))
    assert set(penalize.__all__) < set(dir(penalize))


def test_a_type_checker_sees_what_is_there_when_it_runs() -> None:
    """A name that a stub imports is public only if it is written ``as`` itself."""
    _, *statements = ast.parse(STUB.read_text("utf-8")).body
    imports = [s for s in statements if isinstance(s, ast.ImportFrom)]
    assert all(alias.asname == alias.name for s in imports for alias in s.names)
    others = [ast.unparse(s) for s in statements if s not in imports]
    assert others == ["__version__: str", "__all__: list[str]"]
    assert all(hasattr(penalize, other.partition(":")[0]) for other in others)


def test_importing_penalize_loads_nothing_else() -> None:
    loaded = "import sys; before = set(sys.modules); {}; print(sorted(set(sys.modules) - before))"
    assert output(loaded.format("import penalize")) == "['penalize']"
    assert "'penalize.regularizers'" in output(loaded.format("import penalize; penalize.L2"))
    assert "'penalize.regularizers'" not in output(loaded.format("from penalize import PathError"))


def test_star_gives_the_public_names() -> None:
    assert output("from penalize import *; print(L2(0.5), kernels, 'lazy' in dir())").endswith(
        "L2(0.5) kernels False"
    )


def test_other_names_are_no_attributes() -> None:
    with pytest.raises(AttributeError, match="module 'penalize' has no attribute 'L3'"):
        penalize.L3  # type: ignore[attr-defined]  # noqa: B018
    assert not hasattr(penalize, "ast")
    assert output("from penalize import errors; print(errors.__name__)") == "penalize.errors"


def test_a_package_may_have_some_names_itself(monkeypatch: Any, tmp_path: Path) -> None:
    """As a wing that loads what is slow when it is used, and the rest at once."""
    (tmp_path / "halflazy").mkdir()
    (tmp_path / "halflazy" / "__init__.pyi").write_text(
        "from decimal import Decimal as Decimal\nfrom fractions import Fraction as Fraction\n"
    )
    (tmp_path / "halflazy" / "__init__.py").write_text(
        "from decimal import Decimal\n"
        "from penalize import lazy\n"
        "def __getattr__(name): return lazy.attribute(__name__, name)\n"
        "def __dir__(): return lazy.names(__name__)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import halflazy  # type: ignore[import-not-found]

    package: ModuleType = halflazy
    assert "Fraction" not in vars(package)
    assert package.__all__ == ["Decimal", "Fraction"]
    assert package.Fraction(1, 2) == package.Decimal("0.5")
    assert {"Decimal", "Fraction"} < set(dir(package))


@pytest.mark.parametrize("stub", sorted(SOURCE.rglob("__init__.pyi")), ids=lambda p: p.parent.name)
def test_a_name_that_a_module_has_too_is_imported_at_once(stub: Path) -> None:
    """When the module is loaded it takes the name, and the function would never be asked for."""
    package = ".".join(["penalize", *stub.parent.relative_to(SOURCE).parts])
    module = importlib.import_module(package)
    homes = lazy.homes(package)
    for name in homes.keys() & {found.name for found in pkgutil.iter_modules(module.__path__)}:
        importlib.import_module(f"{package}.{name}")
        assert getattr(module, name) is getattr(importlib.import_module(homes[name]), name)


def test_a_package_without_its_stub_says_what_is_missing(monkeypatch: Any, tmp_path: Path) -> None:
    (tmp_path / "stubless").mkdir()
    (tmp_path / "stubless" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    import stubless  # type: ignore[import-not-found]  # noqa: F401

    with pytest.raises(ImportError, match=r"__init__.pyi is missing.*--collect-data stubless"):
        lazy.names("stubless")


def test_the_wheel_has_the_stubs_and_works_where_it_is(tmp_path: Path) -> None:
    """Also zipped, where the stub is no file."""
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        packed = archive.namelist()
    here = {str(p.relative_to(ROOT / "src")) for p in (ROOT / "src").rglob("*.pyi")}
    assert here | {"penalize/py.typed"} <= set(packed)
    program = (
        f"import sys; sys.path.insert(0, {wheel!r}); import penalize; "
        "print(penalize.__file__, penalize.L2(0.5))"
    )
    assert output(program).endswith(".whl/penalize/__init__.py L2(0.5)")
