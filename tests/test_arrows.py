"""The arrows between modules: every file imports from itself and from below, never from above.

Every import statement counts, also inside functions; one under ``TYPE_CHECKING`` may point up.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import penalize

# Lowest first. What stands in one row does not import each other. A new module needs a place here.
LAYERS = [
    {
        "errors",
        "callsite",
        "alive",
        "imports",
        "lazy",
        "names",
        "keras_names",
        "keras_values",
        "probes",
    }
    | {"scripts", "tables"},
    {"backends", "ranges"},
    {"schedules", "steps"},
    {"regularizers"},
    {"parameters", "contrib", "report", "halfspace", "compacting"},
    {"selectors", "roles"},
    {"rules", "units"},
    {"plan", "planning", "rules_file"},
    {"logs"},
    {"penalize"},  # the face: src/penalize/__init__.py
    {"selection"},
    {"keras"},  # a wing; TensorFlow's may stand above it and read models with it
    {"torch", "tensorflow", "jax"},  # a wing; further wings stand beside it
    {"integrations"},
    {"demo"},
    {"cli"},
]

# Within a wing: lowest first, so that there is no cycle.
WINGS = {
    "torch": [
        "model",
        "outputs",
        "forks",
        "listener",
        "clock",
        "stack",
        "applied",
        "kernels",
        "doors",
        "claims",
        "modes",
        "acting",
        "planned",
        "joining",
        "plan",
        "regularize",
        "auditing",
        "compacting",
        "selection",
        "__init__",
        "tf1",
    ],
    "tensorflow": [
        "contrib",
        "weights",
        "axes",
        "parameters",
        "graphs",
        "declared",
        "factors",
        "collection",
        "plan",
        "regularize",
        "audit",
        "steps",
        "proximal",
        "halfspace",
        "checks",
        "optimizer",
        "__init__",
    ],
    "jax": [
        "trees",
        "parameters",
        "chains",
        "traces",
        "ledger",
        "steps",
        "transforms",
        "halfspace",
        "plan",
        "regularize",
        "compacting",
        "selection",
        "__init__",
    ],
    "keras": [
        "trainers",
        "steppers",
        "acting",
        "conversion",
        "roles",
        "parameters",
        "models",
        "steps",
        "modes",
        "averages",
        "halfspace",
        "choice",
        "checks",
        "saving",
        "hooks",
        "plan",
        "regularize",
        "compacting",
        "selection",
        "__init__",
    ],
    "integrations": [  # one file for each trainer
        "__init__",
        "attached",
        "accelerate",
        "ignite",
        "keras",
        "lightning",
        "skorch",
        "transformers",
    ],
}

# The command line starts without any framework: what it needs of these it imports when it runs.
ONLY_INSIDE_FUNCTIONS = {"cli": {"torch", "demo"}}

# Everything else imports the standard library only.
THIRD_PARTY = {
    "penalize.backends.numpy": {"numpy"},
    "penalize.backends.torch": {"torch"},
    "penalize.backends.keras": {"keras"},
    "penalize.backends.dtensor": {"torch"},
    "penalize.backends.jax": {"jax", "numpy"},
    "penalize.backends.tensorflow": {"tensorflow", "numpy"},
    "penalize.regularizers.constants": {"numpy"},  # when one is made
    "penalize.regularizers.chains": {"numpy"},  # see below: loaded when it is called
    "penalize.regularizers.chain_derivatives": {"numpy"},  # the same
    "penalize.compacting": {"numpy"},  # loaded by the wings that compact
    "penalize.torch": {"torch"},
    "penalize.torch.compacting.onnx": {"onnxruntime"},  # when a file is checked
    "penalize.torch.kernels.native": {"llvmlite"},  # when a kernel is compiled
    "penalize.torch.tf1": {"torch", "tensorflow"},
    "penalize.selection": {"numpy", "joblib", "matplotlib", "pandas", "rich", "scipy"},
    "penalize.torch.selection": {"torch", "numpy", "optuna", "sklearn", "sqlalchemy"},  # Optuna's
    "penalize.jax": {"jax", "optax"},
    "penalize.jax.compacting": {"flax", "numpy"},
    "penalize.jax.selection": {"jax", "optax", "numpy"},
    "penalize.keras": {"keras"},
    "penalize.keras.compacting": {"numpy"},
    "penalize.keras.selection": {"keras", "numpy"},
    "penalize.tensorflow": {"tensorflow", "keras", "numpy"},
    "penalize.integrations": {"torch"},
    **{f"penalize.integrations.{of}": {of} for of in ("accelerate", "lightning", "transformers")},
    "penalize.integrations.ignite": {"ignite"},
    "penalize.integrations.keras": {"keras", "matplotlib"},
    "penalize.integrations.skorch": {"skorch", "sklearn"},
    "penalize.demo": {"torch", "numpy", "sklearn", "matplotlib", "rich"},
}

FRAMEWORKS = ("numpy", "torch", "jax", "tensorflow", "keras")

LEVEL = {unit: level for level, row in enumerate(LAYERS) for unit in row}
SOURCE = Path(penalize.__file__).parent


# --- reading imports ------------------------------------------------------------------------


class Import(NamedTuple):
    target: str
    """In full, with the imported name at the end: ``penalize.errors.PenalizeError``."""

    line: int
    inside_function: bool
    for_types: bool


def imports_of(module: str, source: str, *, is_package: bool = False) -> list[Import]:
    """Every import of a source text, relative ones resolved against the module's name."""
    package = module if is_package else module.rpartition(".")[0]
    return list(_walk(ast.parse(source), package, False, False))


_FOR_TYPES = "TYPE_CHECKING"


def _walk(node: ast.AST, package: str, inside: bool, for_types: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(alias.name, node.lineno, inside, for_types)
    elif isinstance(node, ast.ImportFrom):
        start = node.module or ""
        if node.level:
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            start = ".".join([*above, *filter(None, [node.module])])
        for alias in node.names:
            yield Import(f"{start}.{alias.name}", node.lineno, inside, for_types)
    elif isinstance(node, ast.If) and ast.unparse(node.test).removeprefix("typing.") == _FOR_TYPES:
        for statement in node.body:
            yield from _walk(statement, package, inside, True)
        for statement in node.orelse:
            yield from _walk(statement, package, inside, for_types)
    else:
        inside |= isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from _walk(child, package, inside, for_types)


# --- the rules ------------------------------------------------------------------------------


def violations(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """What a file's imports break, each as a sentence."""
    unit = module.split(".")[1] if "." in module else "penalize"
    if unit not in LEVEL:
        return [f"{module} stands in no row of LAYERS"]
    part = _part(f"{module}.__init__" if is_package else module, unit)
    if unit in WINGS and part not in WINGS[unit]:
        return [f"{module} stands nowhere in WINGS[{unit!r}]"]
    found = []
    for item in imports_of(module, source, is_package=is_package):
        root = item.target.partition(".")[0]
        if root == "penalize":
            problem = _wrong_way(unit, part, item)
        else:
            allowed = root in sys.stdlib_module_names or root in _third_party(module)
            problem = "" if allowed else "a third-party package"
        if problem:
            found.append(f"{module}:{item.line} imports {item.target}: {problem}")
    return found


def _wrong_way(unit: str, part: str, item: Import) -> str:
    target = _unit(item.target)
    if item.for_types:
        return ""
    if target in ONLY_INSIDE_FUNCTIONS.get(unit, ()) and not item.inside_function:
        return "only inside a function"
    if target == unit:
        order = WINGS.get(unit, [])
        target_part = _part(item.target, unit)
        target_part = target_part if target_part in order else "__init__"
        if target_part == part and (SOURCE / unit / part).is_dir():
            return ""  # a package within a wing imports its own files
        points_up = bool(order) and order.index(target_part) >= order.index(part)
        return f"{target_part} is not below {part}" if points_up else ""
    return f"{target} is not below {unit}" if LEVEL[target] >= LEVEL[unit] else ""


def _unit(target: str) -> str:
    """The row's entry that a dotted name belongs to; a name of the face belongs to the face."""
    second = target.split(".")[1] if "." in target else "penalize"
    return second if second in LEVEL else "penalize"


def _part(dotted: str, unit: str) -> str:
    """The module of a wing that a dotted name belongs to."""
    parts = dotted.split(".")
    return parts[2] if unit in WINGS and len(parts) > 2 else "__init__"


def _third_party(module: str) -> set[str]:
    return {
        package
        for owner, packages in THIRD_PARTY.items()
        if f"{module}.".startswith(f"{owner}.")
        for package in packages
    }


# --- the tests ------------------------------------------------------------------------------


def files() -> list[tuple[str, Path]]:
    rows = []
    for path in sorted([*SOURCE.rglob("*.py"), *SOURCE.rglob("*.pyi")]):
        parts = ["penalize", *path.relative_to(SOURCE).with_suffix("").parts]
        rows.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return rows


@pytest.mark.parametrize(
    ("module", "path"), [pytest.param(m, p, id=f"{m}{p.suffix}") for m, p in files()]
)
def test_imports_point_down(module: str, path: Path) -> None:
    is_package = path.stem == "__init__"
    assert violations(module, path.read_text("utf-8"), is_package=is_package) == []


def test_there_is_no_circle() -> None:
    """Within a folder, too, files import from below only, but for what a function imports."""
    known = dict(files())
    arrows: dict[str, set[str]] = {}
    for module, path in known.items():
        is_package = path.name == "__init__.py"
        found = imports_of(module, path.read_text("utf-8"), is_package=is_package)
        targets = (i.target for i in found if not (i.inside_function or i.for_types))
        arrows[module] = {_file(target, known) for target in targets} - {module, ""}
    TopologicalSorter(arrows).prepare()


def _file(target: str, known: Mapping[str, Path]) -> str:
    """The module that has the imported name, or is it."""
    return next((t for t in (target, target.rpartition(".")[0]) if t in known), "")


def test_every_row_of_the_tables_exists() -> None:
    """A row for a module that is gone would let its name stand for anything."""
    modules = {module for module, _ in files()}
    units = {f"penalize.{unit}" for unit in LEVEL if unit != "penalize"}
    parts = {f"penalize.{w}.{p}" for w, names in WINGS.items() for p in names if p != "__init__"}
    assert (units | parts | set(THIRD_PARTY)) - modules == set()


@pytest.mark.parametrize(
    ("module", "source", "problem"),
    [
        ("penalize.rules", "from penalize.plan import Row", "plan is not below rules"),
        ("penalize.rules", "from penalize import plan", "plan is not below rules"),
        ("penalize.rules", "import penalize.plan as p", "plan is not below rules"),
        ("penalize.rules", "from .plan import Row", "plan is not below rules"),
        ("penalize.rules", "from . import plan", "plan is not below rules"),
        ("penalize.rules", "from penalize import L2", "penalize is not below rules"),
        ("penalize.errors", "import penalize.callsite", "callsite is not below errors"),
        ("penalize.regularizers.sums", "from ..rules import Rule", "rules is not below"),
        ("penalize.rules", "def f():\n    from penalize.torch import scope", "torch is not below"),
        ("penalize.rules", "class A:\n  async def f():\n    import penalize.cli", "cli is not"),
        ("penalize.torch.plan", "from penalize.demo import train", "demo is not below torch"),
        (
            "penalize.torch.model.scope",
            "from penalize.torch import plan",
            "plan is not below model",
        ),
        ("penalize.torch.clock", "from .plan import Plan", "plan is not below clock"),
        ("penalize.torch.modes.base", "from ..plan import Plan", "plan is not below modes"),
        ("penalize.torch.plan", "from penalize.torch import Plan", "__init__ is not below plan"),
        ("penalize.torch.plan", "import penalize.torch.plan", "plan is not below plan"),
        ("penalize.torch.new", "import os", "stands nowhere in WINGS"),
        ("penalize.new", "import os", "stands in no row of LAYERS"),
        ("penalize.cli", "from penalize.demo import main", "only inside a function"),
        ("penalize.cli", "import penalize.torch", "only inside a function"),
        ("penalize.rules", "import numpy as np", "a third-party package"),
        ("penalize.cli", "def f():\n    import torch.nn", "a third-party package"),
        ("penalize.backends.torch", "import numpy", "a third-party package"),
        ("penalize.torch.plan", "from jax import numpy", "a third-party package"),
        ("penalize.plan", "if TYPE_CHECKING:\n    from torch import Tensor", "a third-party"),
        ("penalize.plan", "if TYPE_CHECKING:\n  pass\nelse:\n  import penalize.cli", "cli is not"),
        ("penalize.plan", "if not TYPE_CHECKING:\n    import penalize.cli", "cli is not"),
        ("penalize.plan", "try:\n    import keras\nexcept ImportError: pass", "a third-party"),
    ],
)
def test_the_checker_refuses(module: str, source: str, problem: str) -> None:
    (found,) = violations(module, source)
    assert problem in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("penalize.plan", "from penalize import rules"),
        ("penalize.plan", "import penalize.rules, os.path"),
        ("penalize.parameters", "if TYPE_CHECKING:\n    from penalize.rules import Table"),
        ("penalize.parameters", "if typing.TYPE_CHECKING:\n    from .rules import Table"),
        ("penalize.backends.numpy", "import numpy as np"),
        ("penalize.torch.plan", "from . import doors\nimport torch"),
        ("penalize.torch.plan", "from penalize import L2\nfrom penalize.plan import Plan"),
        ("penalize.cli", "def main():\n    from penalize.demo import train"),
        ("penalize.regularizers.base", "def f():\n    from .sums import Sum"),
        ("penalize.torch.modes.gradient", "from penalize.torch.modes.base import Mode"),
    ],
)
def test_the_checker_allows(module: str, source: str) -> None:
    assert violations(module, source) == []


def test_a_package_resolves_relative_imports_against_itself() -> None:
    (item,) = imports_of("penalize.torch", "from .plan import Plan", is_package=True)
    assert item.target == "penalize.torch.plan.Plan"


def loaded_after(statement: str) -> list[str]:
    """The frameworks in ``sys.modules`` of a new Python after a statement."""
    code = f"{statement}; import sys; print(*[f for f in {FRAMEWORKS!r} if f in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout.split()


def test_importing_penalize_loads_no_framework() -> None:
    assert loaded_after("from penalize import *") == []


def test_the_probe_sees_a_framework() -> None:
    assert loaded_after("import penalize; penalize.L2(1)(__import__('numpy').ones(1))") == ["numpy"]
