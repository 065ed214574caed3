"""Keras loads what was saved with penalize, whichever of the two is imported first."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import pytest
from keras_programs import python

import penalize
from penalize import Regularizer, keras_names
from penalize.regularizers.registry import classes_below, is_ours

# What a user does who only loads: no class of penalize has been used yet.
LOAD = """
import keras
found = keras.saving.deserialize_keras_object({config!r})
assert repr(found) == {expected!r}, found
"""


def saved(regularizer: Regularizer) -> dict[str, object]:
    """Its configuration as a file holds it."""
    config = keras.saving.serialize_keras_object(regularizer)
    loaded: dict[str, object] = json.loads(json.dumps(config))
    return loaded


SAVED = penalize.L1(0.1) + penalize.GroupLasso(0.2, groups=((0, 1), (2,)))


@pytest.mark.parametrize(
    "imports",
    [
        "import penalize; import keras",
        "import keras; import penalize",
        "from penalize import L1; from keras import layers",
        "import penalize, importlib, keras, keras.src.saving as s; "
        "importlib.reload(s.object_registration); importlib.reload(keras); "
        "importlib.reload(penalize)",
    ],
)
def test_either_order(imports: str) -> None:
    load = LOAD.format(config=saved(SAVED), expected=repr(SAVED))
    done = python(f"{imports}\n{load}", KERAS_BACKEND="jax")
    assert done.returncode == 0, done.stderr[-2000:]


def test_without_the_hook_keras_refuses() -> None:
    load = LOAD.format(config=saved(SAVED), expected=repr(SAVED))
    done = python(f"import keras\n{load}", KERAS_BACKEND="jax")
    assert "Could not locate class 'Sum'" in done.stderr


def test_every_class_is_registered_by_its_name() -> None:
    ours = [c for c in classes_below(Regularizer) if is_ours(c)]
    assert penalize.Sum in ours
    for cls in ours:
        assert keras.saving.get_registered_name(cls) == f"penalize>{cls.__name__}"


def test_classes_of_users_are_left_to_them() -> None:
    class Mine(penalize.L2):
        pass

    assert keras.saving.get_registered_name(Mine) == "Mine"


PACKAGES = {
    "missing": ("", "ModuleNotFoundError: No module named 'keras'"),
    "failing": ("raise RuntimeError('half way')", "RuntimeError: half way"),
    "something else": ("x = 1", ""),
}


@pytest.mark.parametrize("case", PACKAGES)
def test_the_hook_is_in_nobodys_way(case: str, tmp_path: Path) -> None:
    """A Keras that is missing, fails, or is another package behaves as it would without us."""
    source, error = PACKAGES[case]
    if source:
        (tmp_path / "keras.py").write_text(source)
    program = (
        "import sys, penalize; sys.path = [p for p in sys.path if 'site-packages' not in p]; "
        f"sys.path.insert(0, {str(tmp_path)!r}); import keras; print(keras.x)"
    )
    done = python(program)
    if error:
        assert done.stderr.strip().endswith(error)
    else:
        assert done.stdout == "1\n"


# A package in the place of Keras that tells what was registered with it.
FAKE = """
import types
names = []
def register(package):
    return lambda cls: names.append(cls.__name__) or cls
saving = types.SimpleNamespace(register_keras_serializable=register)
"""
SLOTTED = """
import sys, penalize
from importlib.machinery import PathFinder
class Loader:
    __slots__ = ("inner",)
    def __init__(self, inner): self.inner = inner
    def create_module(self, spec): return self.inner.create_module(spec)
    def exec_module(self, module): return self.inner.exec_module(module)
class Finder:
    def find_spec(self, name, path=None, target=None):
        spec = PathFinder.find_spec(name, path, target)
        if name == "keras": spec.loader = Loader(spec.loader)
        return spec
sys.meta_path.insert(1, Finder())
import keras
kind = Loader
"""
ZIPPED = """
import penalize, importlib.util, zipimport
importlib.util.find_spec("keras"); importlib.util.find_spec("keras")
import keras, other
assert other.__loader__ is keras.__loader__
assert "exec_module" not in vars(keras.__loader__)
kind = zipimport.zipimporter
"""
LAZY = """
import sys, importlib.util
spec = importlib.util.find_spec("keras")
spec.loader = importlib.util.LazyLoader(spec.loader)
keras = sys.modules["keras"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(keras)
"""
NOT_LOADED = """
assert "names" not in object.__getattribute__(keras, "__dict__")
from importlib.machinery import SourceFileLoader as kind
"""


@pytest.mark.parametrize(
    ("program", "zipped"),
    [
        pytest.param(SLOTTED, False, id="a loader that takes no attribute"),
        pytest.param(ZIPPED, True, id="a loader that several modules share"),
        pytest.param(f"import penalize\n{LAZY}{NOT_LOADED}", False, id="lazy"),
        pytest.param(
            f"{LAZY}import penalize\nfrom penalize import L1\n{NOT_LOADED}",
            False,
            id="lazy and first",
        ),
    ],
)
def test_every_loader_does_as_it_would_without_us(
    program: str, zipped: bool, tmp_path: Path
) -> None:
    place = tmp_path / "packages.zip" if zipped else tmp_path
    if zipped:
        with zipfile.ZipFile(place, "w") as archive:
            archive.writestr("keras.py", FAKE)
            archive.writestr("other.py", "")
    else:
        (tmp_path / "keras.py").write_text(FAKE)
    done = python(
        f"import sys; sys.path.insert(0, {str(place)!r})\n{program}\n"
        "assert {'L1', 'Sum', 'GroupLasso'} <= set(keras.names), keras.names\n"
        "assert type(keras.__loader__) is kind, keras.__loader__\n"
        "assert keras.__spec__.loader is keras.__loader__"
    )
    assert done.returncode == 0, done.stderr


def test_it_costs_no_framework_and_no_second_hook() -> None:
    program = (
        "import sys, importlib.util, penalize; "
        "importlib.reload(penalize); "
        "print(sum(type(f).__name__ == '_KerasHook' for f in sys.meta_path), "
        "'penalize.keras_names' in sys.modules, "
        "importlib.util.find_spec('keras') is not None, 'keras' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["1", "False", "True", "False"], done.stderr


def test_importing_keras_in_several_threads_at_once() -> None:
    program = """
import threading
def first(): import penalize
def second(): import keras
threads = [threading.Thread(target=t) for t in (second, first, second, first)]
[t.start() for t in threads]; [t.join() for t in threads]
"""
    load = LOAD.format(config=saved(SAVED), expected=repr(SAVED))
    done = python(program + load, KERAS_BACKEND="jax")
    assert done.returncode == 0, done.stderr[-2000:]


def test_announce_registers_at_once_where_keras_is_there() -> None:
    cls = type("Announced", (), {"get_config": lambda self: {}})
    keras_names.announce(cls)
    assert keras.saving.get_registered_name(cls) == "penalize>Announced"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (keras.regularizers.L1(0.01), penalize.L1(0.01)),
        (keras.regularizers.L2(0.01), penalize.L2(0.01)),
        (keras.regularizers.L1L2(0.01, 0.02), penalize.L1L2(0.01, 0.02)),
        (
            keras.regularizers.OrthogonalRegularizer(0.01, "columns"),
            penalize.Orthogonal(0.01, mode="columns"),
        ),
    ],
    ids=lambda value: type(value).__module__,
)
def test_configurations_go_both_ways(
    theirs: keras.regularizers.Regularizer, ours: Regularizer
) -> None:
    assert type(ours).from_config(theirs.get_config()) == ours
    back = type(theirs).from_config(ours.get_config())
    assert back.get_config() == theirs.get_config()
